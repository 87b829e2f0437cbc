"""What the gate counts and times, for metrics and for the status of Policies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from fairlead.engine.policies import Did
from fairlead.flow.calls import Call
from fairlead.flow.spending import USD, Spend
from fairlead.policy.decision import Breach, Decision
from fairlead.telemetry.metrics import EngineMetrics


class Counts:
    """Counts; `on_rule` is told what the rules of Policies did."""

    def __init__(self, metrics: EngineMetrics | None, on_rule: Callable[[str, Did], None]) -> None:
        self._metrics = metrics
        self._on_rule = on_rule

    def decided(self, decision: Decision) -> None:
        """Count what was decided."""
        if self._metrics is not None:
            self._metrics.decisions.labels(decision.verdict, decision.reason.value).inc()

    def audited(self, breaches: Iterable[Breach]) -> None:
        """Count what Policies in Audit mode would have denied."""
        for breach in breaches:
            self._on_rule(breach.policy, Did.WOULD_DENY)
            if self._metrics is not None:
                self._metrics.would_deny.labels(breach.policy, breach.rule).inc()

    def spent(self, call: Call, used: Spend) -> None:
        """Count what a model call used."""
        if self._metrics is not None and used:
            self._metrics.tokens.labels(call.target, "input").inc(used.input_tokens)
            self._metrics.tokens.labels(call.target, "output").inc(used.output_tokens)
            self._metrics.cost.labels(call.target).inc(used.cost / USD)

    def observe(self, stage: str, started: float) -> None:
        """Time a stage; `started` is of `time.perf_counter`."""
        if self._metrics is not None:
            self._metrics.decision_seconds.labels(stage).observe(time.perf_counter() - started)
