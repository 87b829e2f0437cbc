"""The one connection to SQLite and what runs on it: migration, group commits, reads.

Everything here runs in the store's own thread. The connection is exclusive for the life of the process; WAL with
`synchronous=FULL` makes a commit durable before it returns.
"""

from __future__ import annotations

import secrets
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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
    tuple_,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql import ColumnElement, bindparam, true

from fairlead.engine.audit.records import record_hash
from fairlead.engine.audit.trail import AuditHead
from fairlead.engine.store import schema
from fairlead.engine.store.migrations import upgrade
from fairlead.engine.store.payloads import compress, expand, put_back
from fairlead.engine.store.windows import Spent, Windows
from fairlead.errors import StoreError
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath
from fairlead.flow.spending import Window

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
_WINDOWS = insert(schema.windows)
_PUT_WINDOWS = _WINDOWS.on_conflict_do_update(
    index_elements=["policy", "period", "start"],
    set_={name: _WINDOWS.excluded[name] for name in ("tokens", "cost", "runs")},
)
_PUT_ENTRIES = insert(schema.entries)
_PUT_AUDIT = insert(schema.audit)
_PUT_ANCHORS = insert(schema.anchors)
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
            fresh = {"id": str(uuid.uuid4()), "audit-key": secrets.token_hex(32)}
            rows = [{"key": key, "value": value} for key, value in fresh.items()]
            self._connected.execute(insert(schema.meta).on_conflict_do_nothing(), rows)
        return self._meta("id")

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

    def audit_key(self) -> bytes:
        """Return the key of this store's digests of requests and results."""
        return bytes.fromhex(self._meta("audit-key"))

    def audit_ends(self) -> tuple[AuditHead, dict[RunUid, tuple[dict[str, Any], AuditHead]]]:
        """Return the end of the anchors, and of each run with a journal its first entry's data and its chain's end."""
        anchors, entries, audit, runs = schema.anchors.c, schema.entries.c, schema.audit.c, schema.runs.c
        last = self._rows(select(anchors.anchor).order_by(anchors.n.desc()).limit(1))
        newest = select(audit.record).where(audit.run_uid == runs.uid).order_by(audit.n.desc()).limit(1)
        first = schema.runs.join(schema.entries, (entries.run_uid == runs.uid) & (entries.seq == 1))
        found = select(runs.uid, entries.data, newest.scalar_subquery().label("record")).select_from(first)
        return _end_of(last[0].anchor if last else None), {
            RunUid(row.uid): (orjson.loads(row.data), _end_of(row.record))
            for row in self._rows(found.where(runs.forgotten_at.is_(None)))
        }

    def audit_of(self, run_uid: RunUid) -> list[bytes]:
        """Return a run's records as canonical JSON, in the order of its chain."""
        audit = schema.audit.c
        query = select(audit.record).where(audit.run_uid == run_uid).order_by(audit.n)
        return [bytes(row.record) for row in self._rows(query)]

    def audit_after(self, after: AuditPlace, most: int) -> list[tuple[AuditPlace, bytes]]:
        """Return records of all runs as canonical JSON, in the order of time, from a place on that is not included."""
        audit = schema.audit.c
        place = (audit.at, audit.run_uid, audit.n)
        query = select(*place, audit.record).where(tuple_(*place) > tuple_(*after)).order_by(*place).limit(most)
        return [((row.at, row.run_uid, row.n), bytes(row.record)) for row in self._rows(query)]

    def anchors(self) -> list[bytes]:
        """Return the anchors as canonical JSON, in their order."""
        return [bytes(row.anchor) for row in self._rows(select(schema.anchors.c.anchor).order_by(schema.anchors.c.n))]

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

    def windows(self) -> Windows:
        """Return what was used in each window."""
        rows = self._rows(select(schema.windows))
        return Windows({Window(r.policy, r.period, r.start): Spent(r.tokens, r.cost, r.runs) for r in rows})

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
            (_PUT_AUDIT, batch.audit),
            (_PUT_ANCHORS, batch.anchors),
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
            (_PUT_WINDOWS, [w._asdict() | asdict(spent) for w, spent in batch.windows.items()]),
            (_DROP_SCHEDULES, [{"uid": u, "schedule": n} for (u, n), row in batch.schedules.items() if row is None]),
        ):
            if values:
                self._connected.execute(change, values)
        if batch.audit_before is not None:
            self._prune_audit(batch.audit_before)
            over = schema.windows.c.start + schema.windows.c.period < batch.audit_before
            self._connected.execute(delete(schema.windows).where(over))

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

    def _prune_audit(self, before_ms: int) -> None:
        """Delete the chains whose last record is older, of runs whose journal is gone."""
        audit, runs = schema.audit.c, schema.runs.c
        kept = select(runs.uid).where(runs.forgotten_at.is_(None))
        newest = func.max(audit.at)
        old = select(audit.run_uid).where(audit.run_uid.not_in(kept)).group_by(audit.run_uid).having(newest < before_ms)
        self._connected.execute(delete(schema.audit).where(audit.run_uid.in_(old)))

    def _meta(self, key: str) -> str:
        return str(self._rows(select(schema.meta.c.value).where(schema.meta.c.key == key))[0].value)

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


def _end_of(last: bytes | None) -> AuditHead:
    """Return the end of a chain whose last link this is."""
    link = orjson.loads(last) if last is not None else None
    return AuditHead(link["n"], record_hash(link)) if link is not None else AuditHead()


def _schedule(key: ScheduleKey, row: ScheduleRow) -> dict[str, Any]:
    return {"workflow_uid": key[0], "name": key[1], "definition": row.definition, "decided_at": row.decided_at}


def _configure(connection: Any, _record: Any) -> None:
    for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
