"""Tells the world what became of runs: statuses, spans, metrics. Only of what is committed, and never in the way.

The store calls `committed` after every commit; `runs.py` says when a run waits, goes on or has ended.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fairlead.api.reasons import AcceptedReason
from fairlead.engine.audit import AuditHead
from fairlead.engine.log import RunLog
from fairlead.engine.projection import Surroundings, project, project_least, project_waiting
from fairlead.engine.roster import Roster, Run
from fairlead.engine.status import INTERVAL_SECONDS, StatusWriter
from fairlead.flow.journal import Entry, EntryKind, Path, RunUid
from fairlead.flow.plan import Plan
from fairlead.flow.state import RunState
from fairlead.telemetry.export import SpanExporter
from fairlead.telemetry.ids import trace_id
from fairlead.telemetry.metrics import EngineMetrics
from fairlead.telemetry.spans import SpanFold

_STEP_ENDS = {
    EntryKind.STEP_SUCCEEDED: "Succeeded",
    EntryKind.STEP_FAILED: "Failed",
    EntryKind.STEP_SKIPPED: "Skipped",
}

_log = logging.getLogger(__name__)

_TURN = re.compile(r"#\d+|\[\d+\]")


class Reporter:
    """Turns committed entries into spans and metrics, and states into statuses."""

    def __init__(
        self,
        roster: Roster,
        statuses: StatusWriter,
        exporter: SpanExporter,
        metrics: EngineMetrics,
        *,
        store_id: str,
        audit_head: Callable[[RunUid], AuditHead | None],
        clock: Callable[[], int],
    ) -> None:
        """Take where statuses, spans and metrics go, and who knows the audit; `clock` gives Unix ms."""
        self._roster = roster
        self._statuses = statuses
        self._exporter = exporter
        self._metrics = metrics
        self._store_id = store_id
        self._audit_head = audit_head
        self._clock = clock
        self._folds: dict[RunUid, SpanFold] = {}

    def committed(self, entries: Sequence[Entry]) -> None:
        """Take note of a commit."""
        touched: dict[RunUid, Run] = {}
        for entry in entries:
            self._trace(entry)
            run = self._roster.get(entry.run_uid)
            if run is not None:
                touched[run.uid] = run
                self._measure(entry, run)
        for run in touched.values():
            self.goes_on(run)

    def recovered(self, entries: Sequence[Entry]) -> None:
        """Take note of a journal that was read back: its spans are emitted again, with the same ids."""
        if entries and entries[0].run_uid not in self._folds:
            for entry in entries:
                self._trace(entry)

    def waits(self, run: Run, reason: AcceptedReason, message: str) -> None:
        """Say why a run is not accepted yet."""

        def compose(published: Mapping[str, Any]) -> dict[str, Any]:
            return project_waiting(reason, message, self._around(run, published))

        self._statuses.mark(run.uid, run.name, compose, published=run.published)

    def goes_on(self, run: Run) -> None:
        """Say where an accepted run stands."""
        if run.log is not None:
            self._statuses.mark(run.uid, run.name, self._composer(run, run.log), published=run.published)

    def ended(self, run: Run, state: RunState, plan: Plan | None, *, silent: bool = False) -> None:
        """Say how a run ended; and once more when its spans have arrived or are lost. `silent`: its object knows."""

        def compose(published: Mapping[str, Any]) -> dict[str, Any]:
            run.published = self._last(run, state, plan, self._around(run, published))
            return run.published

        def say() -> None:
            self._statuses.mark(run.uid, run.name, compose, published=run.published, final=True)

        self._folds.pop(run.uid, None)
        if state.started_at and state.finished_at is not None and state.terminal is not None:
            seconds = (state.finished_at - state.started_at) / 1000
            self._metrics.run_duration_seconds.labels(state.terminal.reason).observe(seconds)
        if run.obj is None or silent:
            self.gone(run)
            return
        say()
        if self._exporter.enabled:
            asyncio.get_running_loop().call_later(INTERVAL_SECONDS, say)

    def gone(self, run: Run) -> None:
        """Say nothing more of a run whose object is gone, or says all there is to say."""
        self._statuses.forget(run.uid)

    def _last(self, run: Run, state: RunState, plan: Plan | None, around: Surroundings) -> dict[str, Any]:
        try:
            return project(state, plan, around)
        except Exception:  # that a run has ended is said, whatever else cannot be
            _log.exception("an ended run cannot be shown whole", extra={"run": run.uid, "trace": trace_id(run.uid)})
            return project_least(state, around)

    def _composer(self, run: Run, log: RunLog) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        return lambda published: project(log.state, log.plan, self._around(run, published))

    def _around(self, run: Run, published: Mapping[str, Any]) -> Surroundings:
        return Surroundings(
            uid=run.uid,
            generation=run.generation,
            previous=published,
            store_id=self._store_id,
            now_ms=self._clock(),
            trace=self._exporter.counts(trace_id(run.uid)) if self._exporter.enabled else None,
            note=run.note,
            told=run.log.told if run.log is not None else {},
            audit=self._audit_head(run.uid),
        )

    def _trace(self, entry: Entry) -> None:
        if self._exporter.enabled:
            fold = self._folds.get(entry.run_uid)
            if fold is None:
                fold = self._folds[entry.run_uid] = SpanFold(entry.run_uid)
            self._exporter.submit(fold.add(entry))

    def _measure(self, entry: Entry, run: Run) -> None:
        if entry.kind is EntryKind.STEP_STARTED and run.log is not None and entry.seq == 2:
            accepted = run.log.state.accepted
            if accepted is not None:
                latency_ms = max(0, entry.at - accepted.created_at)
                self._metrics.run_start_latency_seconds.observe(latency_ms / 1000)
        phase = _STEP_ENDS.get(entry.kind)
        if phase is not None and run.log is not None and entry.data.get("final", True):
            self._metrics.steps.labels(_kind_of(run.log.plan, entry.path), phase).inc()


def _kind_of(plan: Plan, path: Path) -> str:
    """Return the kind of the step at a path; blocks are flat, so the last names and the nearest list tell."""
    around, _, name = _TURN.sub("", path).rpartition("/")
    if around and _kind_of(plan, Path(around)) == "parallel":
        return "block"
    bodies = [*plan.blocks.values()] if around else [plan.main]
    return next((body.steps[name].kind for body in bodies if name in body.steps), "unknown")
