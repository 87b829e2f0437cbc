"""What the store keeps, as the engine speaks of it: runs, schedules, and what one commit writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fairlead.engine.store.windows import Spent
from fairlead.flow.journal import Entry, Path, RunUid
from fairlead.flow.spending import Window

OPEN = "Open"
"""The state of a run that goes on; afterwards it is the kind of the terminal entry."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the store knows it.

    Attributes:
        uid: the WorkflowRun's UID.
        namespace: where it is.
        name: the WorkflowRun's name.
        workflow: the Workflow's name.
        state: OPEN, or the kind of the terminal entry.
        accepted_at: Unix ms of the acceptance (or rejection).
        wake_at: Unix ms at which a parked run goes on; None while it is not parked.
        deadline_at: Unix ms; 0 if it was never accepted.
        key: the concurrency key, "" for none.
        sequence: the journal's last `seq`.
        last_at: the journal's last `at`.
    """

    uid: RunUid
    namespace: str
    name: str
    workflow: str
    state: str
    accepted_at: int
    wake_at: int | None
    deadline_at: int
    key: str
    sequence: int
    last_at: int

    @property
    def open(self) -> bool:
        """Tell whether the run goes on."""
        return self.state == OPEN


@dataclass(frozen=True, slots=True)
class PodRow:
    """A pod that was started, and the attempt whose it is."""

    uid: str
    run_uid: RunUid
    path: Path
    attempt: int


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What is left in memory of a run that has ended.

    Attributes:
        workflow: the Workflow's name.
        state: the kind of the terminal entry.
        at: Unix ms of the end; of the forgetting, once its journal is deleted.
    """

    workflow: str
    state: str
    at: int


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """How far a schedule is.

    Attributes:
        definition: its fields and time zone; another definition begins anew.
        decided_at: Unix ms; every time up to here has its run or was skipped.
    """

    definition: str
    decided_at: int


AuditPlace = tuple[int, str, int]
"""Where a record stands among those of all runs: its Unix ms, its run's UID, its number."""

ScheduleKey = tuple[str, str]
"""The Workflow's UID and the schedule's name."""


@dataclass(slots=True)
class Batch:
    """What one commit writes; rows are dicts of column values. `entries` are the same as they were stamped."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    payloads: dict[str, bytes] = field(default_factory=dict)
    refs: list[dict[str, Any]] = field(default_factory=list)
    audit: list[dict[str, Any]] = field(default_factory=list)
    anchors: list[dict[str, Any]] = field(default_factory=list)
    closed: dict[RunUid, Entry] = field(default_factory=dict)
    wakes: dict[RunUid, int | None] = field(default_factory=dict)
    revisions: dict[str, bytes] = field(default_factory=dict)
    forgotten: dict[RunUid, int] = field(default_factory=dict)
    dropped: list[RunUid] = field(default_factory=list)
    schedules: dict[ScheduleKey, ScheduleRow | None] = field(default_factory=dict)
    windows: dict[Window, Spent] = field(default_factory=dict)
    audit_before: int | None = None
