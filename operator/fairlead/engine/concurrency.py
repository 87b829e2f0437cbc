"""Whose turn it is: which accepted runs start now, and what the others wait for.

A run needs one of the engine's places, and its Workflow may say how many of its runs, or of those with the same key,
are at work at the same time. What counts are the runs that are driven; a parked run is a row and holds nobody up.

A run that waits for what it called holds its place, so that no Workflow may take all of them: it gets another one while
it has fewer than are free, and a few are its own whatever the others do.
"""

from __future__ import annotations

from fairlead.api.workflow import Concurrency, Workflow
from fairlead.engine.fairness import FairQueue
from fairlead.engine.roster import Roster, Run, Standing
from fairlead.engine.seams import Resources
from fairlead.flow.journal import RunUid


class Turns:
    """The line of accepted runs, and who in it may start. Bounds are those of the Workflows as they stand now."""

    def __init__(self, resources: Resources, roster: Roster, *, places: int) -> None:
        """Take what is declared, who is here, and how many runs are driven at the same time at most."""
        self._resources = resources
        self._roster = roster
        self._places = places
        self._own = places // 32
        self._queue = FairQueue()

    def push(self, run: Run) -> None:
        """Let a run stand in line."""
        self._queue.push(run.workflow, run.uid, run.key)

    def remove(self, run: Run) -> None:
        """Take a run out of the line, if it stands there."""
        self._queue.remove(run.workflow, run.uid, run.key)

    def next(self) -> RunUid | None:
        """Return whose turn it is, None when there is nobody who may start."""
        return self._queue.pop(self._allowed, self._has_place)

    def at_once(self, run: Run) -> bool:
        """Tell whether a run may start without standing in line: nobody who could start waits."""
        if not self._has_place(run.workflow) or not self._allowed(run.workflow, run.key):
            return False
        return not self._queue.ready(self._allowed, self._has_place)

    def busy(self, workflow: Workflow, key: str) -> str:
        """Return who stands in the way of one more run of this key, started or in line; "" when nobody does."""
        concurrency, name = workflow.spec.concurrency, workflow.metadata.name
        if concurrency is None or self._count(name, key, Standing.ACTIVE, Standing.QUEUED) < concurrency.max_runs:
            return ""
        return _others(concurrency)

    def waits_for(self, run: Run) -> str:
        """Return what a run in line waits for, in words."""
        concurrency = self._concurrency(run.workflow)
        if concurrency is None or self._allowed(run.workflow, run.key):
            all_runs, mine = self._roster.active(), self._roster.active(run.workflow)
            return f"waits for a free place: {all_runs} runs are at work, {mine} of them of this Workflow"
        return f"waits until one of the others has ended or waits itself: {_others(concurrency)}"

    def _has_place(self, workflow: str) -> bool:
        return self._roster.active(workflow) < max(self._own, self._places - self._roster.active())

    def _allowed(self, workflow: str, key: str) -> bool:
        concurrency = self._concurrency(workflow)
        return concurrency is None or self._count(workflow, key, Standing.ACTIVE) < concurrency.max_runs

    def _concurrency(self, workflow: str) -> Concurrency | None:
        declared = self._resources.workflows.get(workflow)
        return declared.spec.concurrency if declared is not None else None

    def _count(self, workflow: str, key: str, *standings: Standing) -> int:
        return sum(self._roster.standing(workflow, key, standing) for standing in standings)


def _others(concurrency: Concurrency) -> str:
    same = " with the same key" if concurrency.key is not None else ""
    return f"as many runs{same} are at work as concurrency.maxRuns allows ({concurrency.max_runs})"
