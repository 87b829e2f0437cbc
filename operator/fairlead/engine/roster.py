"""Who is here: every run that has not ended, where it stands, and how many of them each Workflow has."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import ValidationError

from fairlead.api.run import WorkflowRun, WorkflowRunSpec
from fairlead.engine.acceptance import Given
from fairlead.engine.log import RunLog
from fairlead.engine.store.rows import OPEN
from fairlead.flow.journal import EntryKind, RunUid
from fairlead.flow.labels import TRUSTED, Label
from fairlead.telemetry.ids import trace_id
from fairlead.telemetry.metrics import EngineMetrics

_log = logging.getLogger(__name__)


class Standing(StrEnum):
    """Where an open run stands."""

    WAITING = "Waiting"  # for acceptance
    QUEUED = "Queued"  # accepted, for a place
    ACTIVE = "Active"  # driven
    PARKED = "Parked"  # until a time: a row, no task


@dataclass(slots=True)
class Run:
    """One open run.

    Attributes:
        uid: its identity.
        name: the WorkflowRun's name.
        workflow: the Workflow's name.
        seen_at_ms: Unix ms at which this process met it.
        obj: the object as last seen; None when it is gone.
        heeded: what was asked of it when its journal was last seen to hold all of that; None for nothing.
        published: its status in the cluster when it was met.
        standing: where it stands.
        log: its journal while it is in memory.
        task: its driver.
        key: counted with others of the same key where the Workflow bounds its concurrency; "" for no key.
        given: what came of reading `inputFrom` or `retryFrom`, until the next look at the run.
        retries: the UID of the run that it goes on from, once that was found.
        taken: the label of the input that it takes over from that.
        deadline_ms: Unix ms; 0 while not known.
        cancel: why it is to be cancelled, "" if it is not.
        note: why it does not go on, "" when it does.
        retry_ms: the pause after the last unexpected exception; 0 without one.
        awaits: the names of the child runs that it waited for when it parked; None when it did not.
        over: its object says that it has ended.
    """

    uid: RunUid
    name: str
    workflow: str
    seen_at_ms: int
    obj: WorkflowRun | None = None
    heeded: WorkflowRunSpec | None = None
    published: Mapping[str, Any] = field(default_factory=dict)
    standing: Standing = Standing.WAITING
    log: RunLog | None = None
    task: asyncio.Task[None] | None = None
    key: str = ""
    given: Given | None = None
    retries: RunUid | None = None
    taken: Label = TRUSTED
    deadline_ms: int = 0
    cancel: str = ""
    note: str = ""
    retry_ms: int = 0
    awaits: frozenset[str] | None = None
    over: bool = False

    def stop(self) -> None:
        """Do nothing of it any more: its object says that it has ended."""
        self.over = True
        if self.log is not None:
            self.log.seal()
        if self.task is not None:
            self.task.cancel()

    @property
    def parent(self) -> RunUid:
        """Return the UID of the run whose child it is; empty for no child."""
        parent = self.obj.spec.parent if self.obj is not None else None
        return RunUid(parent.uid if parent is not None else "")

    @property
    def generation(self) -> int:
        """Return the object's generation that was looked at last."""
        return self.obj.metadata.generation if self.obj is not None else 0


def parsed_run(raw: Mapping[str, Any]) -> WorkflowRun | None:
    """Return a WorkflowRun as this version understands it; None when it does not."""
    try:
        return WorkflowRun.model_validate(raw)
    except ValidationError as error:
        uid = raw["metadata"].get("uid")
        _log.error("WorkflowRun not understood: %d problems", error.error_count(), extra={"run": uid})
        return None


@contextmanager
def alone(uid: RunUid, failed: asyncio.Event) -> Iterator[None]:
    """The boundary around one run: what breaks here is logged, and the others go on; not if the store has `failed`."""
    try:
        yield
    except Exception:
        if failed.is_set():
            raise
        _log.exception("a run cannot be looked at", extra={"run": uid, "trace": trace_id(uid)})


class Roster:
    """The open runs by UID, and counts of all by Workflow."""

    def __init__(self, metrics: EngineMetrics) -> None:
        self._metrics = metrics
        self._runs: dict[RunUid, Run] = {}
        self._waiting: dict[str, dict[RunUid, None]] = defaultdict(dict)
        self._children: dict[RunUid, dict[RunUid, None]] = {}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._standings: Counter[tuple[str, str, Standing]] = Counter()
        self._active = 0
        self.touched: set[str] = set()
        """Workflows whose counts changed since somebody looked."""

    def get(self, uid: RunUid) -> Run | None:
        """Return an open run."""
        return self._runs.get(uid)

    def all(self) -> list[Run]:
        """Return every open run."""
        return list(self._runs.values())

    def goes_on(self, run: Run) -> bool:
        """Tell whether a run is here, and not over."""
        return self._runs.get(run.uid) is run and not run.over

    def abandon(self) -> None:
        """Leave all runs as they stand: the engine ends, and the next one goes on with what is under way."""
        for run in self._runs.values():
            if run.log is not None:
                run.log.abandon()

    def waiting_for(self, workflow: str) -> list[RunUid]:
        """Return the runs that wait for acceptance by this Workflow."""
        return list(self._waiting[workflow]) if workflow in self._waiting else []

    def children_of(self, uid: RunUid) -> list[Run]:
        """Return the open child runs of a run."""
        return [self._runs[child] for child in self._children.get(uid, ())]

    def active(self, workflow: str | None = None) -> int:
        """Return how many runs are driven, of all Workflows or of one."""
        return self._active if workflow is None else self._counts[workflow][Standing.ACTIVE]

    def standing(self, workflow: str, key: str, standing: Standing) -> int:
        """Return how many runs of a Workflow with this concurrency key stand there."""
        return self._standings[workflow, key, standing]

    def add(self, run: Run, standing: Standing) -> None:
        """Take a run in."""
        self._runs[run.uid] = run
        self._stand(run, standing, 1)
        run.standing = standing
        if run.parent:
            self._children.setdefault(run.parent, {})[run.uid] = None
        self._index(run)

    def move(self, run: Run, standing: Standing) -> None:
        """Let a run stand elsewhere."""
        if standing is not run.standing:
            self._stand(run, run.standing, -1)
            self._stand(run, standing, 1)
            run.standing = standing
            self._index(run)

    def remove(self, run: Run, ended: EntryKind | None = None) -> None:
        """Let a run go; `ended` says how, None if it never began."""
        if self._runs.pop(run.uid, None) is None:
            return
        self._stand(run, run.standing, -1)
        self._waiting[run.workflow].pop(run.uid, None)
        if not self._waiting[run.workflow]:
            del self._waiting[run.workflow]
        siblings = self._children.get(run.parent, {})
        siblings.pop(run.uid, None)
        if not siblings:
            self._children.pop(run.parent, None)
        if ended is not None:
            self._count(run.workflow, ended.value, 1)

    def count_ended(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Take over how many runs ended before this process began, by (Workflow, state)."""
        for (workflow, state), runs in counts.items():
            if state != OPEN:
                self._count(workflow, state, runs)

    def status(self, workflow: str) -> dict[str, int]:
        """Return the Workflow's `status.runs`."""
        counts = self._counts[workflow]
        succeeded = counts[EntryKind.RUN_SUCCEEDED.value]
        failed = sum(counts[kind.value] for kind in (EntryKind.RUN_FAILED, EntryKind.RUN_REJECTED))
        return {
            "active": counts[Standing.ACTIVE],
            "waiting": counts[Standing.PARKED],
            "queued": counts[Standing.WAITING] + counts[Standing.QUEUED],
            "succeeded": succeeded,
            "failed": failed + counts[EntryKind.RUN_CANCELLED.value],
        }

    def _index(self, run: Run) -> None:
        if run.standing is Standing.WAITING:
            self._waiting[run.workflow][run.uid] = None
        elif run.workflow in self._waiting:
            self._waiting[run.workflow].pop(run.uid, None)

    def _stand(self, run: Run, standing: Standing, change: int) -> None:
        self._count(run.workflow, standing, change)
        self._active += change if standing is Standing.ACTIVE else 0
        if standing in (Standing.ACTIVE, Standing.QUEUED):
            place = (run.workflow, run.key, standing)
            self._standings[place] += change
            if not self._standings[place]:
                del self._standings[place]

    def _count(self, workflow: str, phase: str, change: int) -> None:
        self._counts[workflow][phase] += change
        self._metrics.runs.labels(workflow, str(phase)).inc(change)
        self.touched.add(workflow)
