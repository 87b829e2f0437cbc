"""Prometheus metrics of both processes. Never run, step or user names as labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LONG = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600, 14400, 86400)


class EngineMetrics:
    """The engine's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.runs = Gauge("fairlead_runs", "Runs by phase.", ["workflow", "phase"], registry=registry)
        self.run_duration_seconds = Histogram(
            "fairlead_run_duration_seconds", "From acceptance to the end.", ["outcome"], buckets=LONG, registry=registry
        )
        self.run_start_latency_seconds = Histogram(
            "fairlead_run_start_latency_seconds",
            "From the object's creation to the first step.",
            buckets=LONG,
            registry=registry,
        )
        self.steps = Counter("fairlead_steps_total", "Steps that ended.", ["kind", "phase"], registry=registry)
        self.decisions = Counter(
            "fairlead_decisions_total", "Decisions of the gate.", ["decision", "reason"], registry=registry
        )
        self.would_deny = Counter(
            "fairlead_would_deny_total", "What Policies in Audit mode found.", ["policy", "rule"], registry=registry
        )
        self.decision_seconds = Histogram(
            "fairlead_decision_duration_seconds", "Time per stage.", ["stage"], buckets=FAST, registry=registry
        )
        self.authorizer_cache = Counter(
            "fairlead_authorizer_cache_total", "Reviews by where they came from.", ["result"], registry=registry
        )
        self.step_requests_refused = Counter(
            "fairlead_step_requests_refused_total", "What steps' pods are refused.", ["reason"], registry=registry
        )
        self.tokens = Counter(
            "fairlead_tokens_total", "Tokens as the models reported them.", ["model", "direction"], registry=registry
        )
        self.cost = Counter(
            "fairlead_cost_usd_total", "US dollars, by the prices of the Models.", ["model"], registry=registry
        )
        self.journal_commit_seconds = Histogram(
            "fairlead_journal_commit_duration_seconds", "One group commit.", buckets=FAST, registry=registry
        )
        self.status_writes = Counter(
            "fairlead_status_writes_total", "Status writes by kind.", ["kind"], registry=registry
        )
        self.spans_dropped = Counter(
            "fairlead_spans_dropped_total", "Spans that were not delivered.", registry=registry
        )

    def expose(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self.registry)


class OperatorMetrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reconcile = Counter("fairlead_reconcile_total", "Reconciliations.", ["kind", "result"], registry=registry)
        self.reconcile_seconds = Histogram(
            "fairlead_reconcile_duration_seconds", "One reconciliation.", ["kind"], buckets=FAST, registry=registry
        )
        self.queue_depth = Gauge("fairlead_queue_depth", "Keys that wait.", ["kind"], registry=registry)
        self.watch_restarts = Counter("fairlead_watch_restarts_total", "Watches that began anew.", registry=registry)
        self.leader = Gauge("fairlead_leader", "1 while this process leads.", registry=registry)

    def expose(self) -> bytes:
        """Return the text exposition format."""
        return generate_latest(self.registry)
