"""The one connection to SQLite and what runs on it: migration, group commits, reads.

Everything here runs in the store's own thread. The connection is exclusive for the life of the process; WAL with
`synchronous=FULL` makes a commit durable before it returns.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    create_engine,
    delete,
    event,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import ColumnElement, bindparam, true

from fairlead.engine.store import schema
from fairlead.engine.store.migrations import upgrade
from fairlead.engine.store.payloads import compress, expand, put_back
from fairlead.errors import StoreError
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath

OPEN = "Open"
"""The state of a run that goes on; afterwards it is the kind of the terminal entry."""

# What commits execute, built once: building a statement takes longer than SQLite takes to execute it.
_RUN = update(schema.runs).where(schema.runs.c.uid == bindparam("run"))
_PUT_REVISIONS = insert(schema.revisions).on_conflict_do_nothing()
_PUT_RUNS = insert(schema.runs)
_PUT_PAYLOADS = insert(schema.payloads).on_conflict_do_nothing()
_PUT_PAYLOAD_REFS = insert(schema.payload_refs).on_conflict_do_nothing()
_SCHEDULES = insert(schema.schedules)
_PUT_SCHEDULES = _SCHEDULES.on_conflict_do_update(
    index_elements=["workflow_uid", "name"],
    set_={"definition": _SCHEDULES.excluded.definition, "decided_at": _SCHEDULES.excluded.decided_at},
)
_DROP_SCHEDULES = delete(schema.schedules).where(
    schema.schedules.c.workflow_uid == bindparam("uid"), schema.schedules.c.name == bindparam("schedule")
)
_PUT_ENTRIES = insert(schema.entries)
_PARK_RUNS = _RUN.values(wake_at=bindparam("at"))
_CLOSE_RUNS = _RUN.values(state=bindparam("ended"), ended_at=bindparam("at"), wake_at=None)
_FORGET_RUNS = _RUN.values(forgotten_at=bindparam("at"))
_DROP_RUNS = delete(schema.runs).where(schema.runs.c.uid == bindparam("run"))


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
    closed: dict[RunUid, Entry] = field(default_factory=dict)
    wakes: dict[RunUid, int | None] = field(default_factory=dict)
    revisions: dict[str, bytes] = field(default_factory=dict)
    forgotten: dict[RunUid, int] = field(default_factory=dict)
    dropped: list[RunUid] = field(default_factory=list)
    schedules: dict[ScheduleKey, ScheduleRow | None] = field(default_factory=dict)


class Database:
    """SQLite behind SQLAlchemy Core. Every method may block; none may be called from two threads."""

    def __init__(self, path: Path, *, sync_delay_seconds: float) -> None:
        self._path = path
        self._sync_delay_seconds = sync_delay_seconds
        self._engine: Engine | None = None
        self._connection: Connection | None = None

    def open(self) -> str:
        """Connect, bring the schema to head and return the store's id."""
        self._engine = create_engine(
            f"sqlite:///{self._path}",
            poolclass=StaticPool,
            connect_args={"isolation_level": None, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._connection = self._engine.connect()
        upgrade(self._connection)
        with self._connected.begin():
            fresh = {"key": "id", "value": str(uuid.uuid4())}
            self._connected.execute(insert(schema.meta).on_conflict_do_nothing(), fresh)
        return str(self._rows(select(schema.meta.c.value).where(schema.meta.c.key == "id"))[0].value)

    def close(self) -> None:
        """Close the connection; SQLite checkpoints its log."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._engine is not None:
            self._engine.dispose()

    def commit(self, batch: Batch) -> float:
        """Write a batch in one transaction and return the seconds that it took."""
        begun = time.perf_counter()
        with self._connected.begin():
            self._write(batch)
            if self._sync_delay_seconds:
                time.sleep(self._sync_delay_seconds)
        return time.perf_counter() - begun

    def load(self, run_uid: RunUid) -> list[Entry]:
        """Return a run's journal in order, payloads put back."""
        columns = schema.entries.c
        rows = self._rows(select(schema.entries).where(columns.run_uid == run_uid).order_by(columns.seq))
        return [
            Entry(
                run_uid,
                row.seq,
                row.at,
                EntryKind(row.kind),
                RunPath(row.path),
                row.attempt,
                put_back(row.data, row.payloads, self._payload),
            )
            for row in rows
        ]

    def open_runs(self) -> list[RunRow]:
        """Return every open run, oldest first."""
        return self._run_rows(schema.runs.c.state == OPEN)

    def open_parents(self) -> set[RunUid]:
        """Return the open runs that have started a child run."""
        runs, entries = schema.runs.c, schema.entries.c
        mine = schema.runs.join(schema.entries, entries.run_uid == runs.uid)
        started = (runs.state == OPEN, entries.kind == EntryKind.CHILD_STARTED.value)
        return {RunUid(row.uid) for row in self._rows(select(runs.uid).select_from(mine).where(*started).distinct())}

    def run(self, run_uid: RunUid) -> RunRow | None:
        """Return one run, open or not."""
        return next(iter(self._run_rows(schema.runs.c.uid == run_uid)), None)

    def run_named(self, name: str) -> RunRow | None:
        """Return the last run of this name that has its journal here."""
        return next(reversed(self._run_rows(schema.runs.c.name == name)), None)

    def runs(self) -> list[RunRow]:
        """Return all runs, oldest first."""
        return self._run_rows(true())

    def ended_runs(self) -> tuple[dict[RunUid, EndedRun], dict[RunUid, EndedRun]]:
        """Return the runs that have ended: those with a journal, and those whose journal was deleted."""
        runs = schema.runs.c
        kept: dict[RunUid, EndedRun] = {}
        forgotten: dict[RunUid, EndedRun] = {}
        for row in self._rows(select(schema.runs).where(runs.state != OPEN).order_by(runs.ended_at)):
            found, at = (kept, row.ended_at) if row.forgotten_at is None else (forgotten, row.forgotten_at)
            found[RunUid(row.uid)] = EndedRun(sys.intern(row.workflow), sys.intern(row.state), at)
        return kept, forgotten

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many runs there are by (Workflow, state)."""
        workflow, state = schema.runs.c.workflow, schema.runs.c.state
        known = select(workflow, state, func.count().label("runs")).where(schema.runs.c.forgotten_at.is_(None))
        rows = self._rows(known.group_by(workflow, state))
        return {(row.workflow, row.state): row.runs for row in rows}

    def schedules(self) -> dict[ScheduleKey, ScheduleRow]:
        """Return how far every schedule is."""
        rows = self._rows(select(schema.schedules))
        return {(row.workflow_uid, row.name): ScheduleRow(row.definition, row.decided_at) for row in rows}

    def payload(self, run_uid: RunUid, digest: str) -> bytes | None:
        """Return a payload's canonical JSON if this run refers to it."""
        refs = schema.payload_refs.c
        mine = self._rows(select(refs.digest).where(refs.run_uid == run_uid, refs.digest == digest))
        return expand(self._payload(digest)) if mine else None

    def revision(self, digest: str) -> dict[str, Any] | None:
        """Return a frozen spec."""
        rows = self._rows(select(schema.revisions.c.spec).where(schema.revisions.c.digest == digest))
        return orjson.loads(rows[0].spec) if rows else None

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise StoreError("the store is not open")
        return self._connection

    def _write(self, batch: Batch) -> None:
        bodies = [{"digest": key, "bytes": len(body), "data": compress(body)} for key, body in batch.payloads.items()]
        for statement, rows in (
            (_PUT_REVISIONS, [{"digest": key, "spec": spec} for key, spec in batch.revisions.items()]),
            (_PUT_RUNS, batch.runs),
            (_PUT_PAYLOADS, bodies),
            (_PUT_PAYLOAD_REFS, batch.refs),
            (_PUT_ENTRIES, batch.rows),
            (_PARK_RUNS, [{"run": uid, "at": at} for uid, at in batch.wakes.items()]),
            (_CLOSE_RUNS, [{"run": uid, "ended": end.kind.value, "at": end.at} for uid, end in batch.closed.items()]),
            (_FORGET_RUNS, [{"run": uid, "at": at} for uid, at in batch.forgotten.items()]),
        ):
            if rows:
                self._connected.execute(statement, rows)
        for uid in batch.forgotten:
            self._forget(uid)
        for change, values in (
            (_DROP_RUNS, [{"run": uid} for uid in batch.dropped]),
            (_PUT_SCHEDULES, [_schedule(key, row) for key, row in batch.schedules.items() if row is not None]),
            (_DROP_SCHEDULES, [{"uid": u, "schedule": n} for (u, n), row in batch.schedules.items() if row is None]),
        ):
            if values:
                self._connected.execute(change, values)

    def _forget(self, run_uid: RunUid) -> None:
        refs, bodies = schema.payload_refs.c, schema.payloads.c
        execute = self._connected.execute
        digests = [row.digest for row in execute(select(refs.digest).where(refs.run_uid == run_uid))]
        execute(delete(schema.payload_refs).where(refs.run_uid == run_uid))
        still_used = select(refs.digest).where(refs.digest == bodies.digest).exists()
        if digests:
            unused = delete(schema.payloads).where(bodies.digest == bindparam("body"), ~still_used)
            execute(unused, [{"body": digest} for digest in digests])
        execute(delete(schema.entries).where(schema.entries.c.run_uid == run_uid))

    def _payload(self, digest: str) -> bytes:
        rows = self._rows(select(schema.payloads.c.data).where(schema.payloads.c.digest == digest))
        if not rows:
            raise StoreError(f"the payload {digest} is missing")
        return bytes(rows[0].data)

    def _run_rows(self, condition: ColumnElement[bool]) -> list[RunRow]:
        runs, entries = schema.runs, schema.entries
        newest = select(entries.c.seq).where(entries.c.run_uid == runs.c.uid).order_by(entries.c.seq.desc()).limit(1)
        latest = newest.with_only_columns(entries.c.at)
        rows = self._rows(
            select(runs, newest.scalar_subquery().label("seq"), latest.scalar_subquery().label("at"))
            .where(condition, runs.c.forgotten_at.is_(None))
            .order_by(literal_column("runs.rowid"))  # as they were accepted
        )
        return [
            RunRow(
                RunUid(row.uid),
                row.namespace,
                row.name,
                row.workflow,
                row.state,
                row.accepted_at,
                row.wake_at,
                row.deadline_at or 0,
                row.concurrency_key or "",
                row.seq or 0,
                row.at or 0,
            )
            for row in rows
        ]

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._connected.begin():
            return self._connected.execute(query).all()


def _schedule(key: ScheduleKey, row: ScheduleRow) -> dict[str, Any]:
    return {"workflow_uid": key[0], "name": key[1], "definition": row.definition, "decided_at": row.decided_at}


def _configure(connection: Any, _record: Any) -> None:
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
