"""The one connection to the database and what runs on it: migration, group commits, reads.

Everything here runs in the store's own thread. The connection is this process' for its whole life; what makes it so,
and a commit durable before it returns, is the backend's: `sqlite.py` or `postgres.py`.
"""

from __future__ import annotations

import secrets
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import orjson
from sqlalchemy import Connection, Row, Select, delete, func, select, tuple_
from sqlalchemy.sql import ColumnElement, bindparam, true

from fairlead.engine.audit.records import record_hash
from fairlead.engine.audit.trail import AuditHead
from fairlead.engine.audit.verify import readable
from fairlead.engine.store import schema
from fairlead.engine.store.backend import Backend
from fairlead.engine.store.migrations import upgrade
from fairlead.engine.store.payloads import compress, expand, put_back, value_of
from fairlead.engine.store.rows import OPEN, AuditPlace, Batch, EndedRun, PodRow, RunRow, ScheduleKey, ScheduleRow
from fairlead.engine.store.statements import Statements
from fairlead.engine.store.windows import Spent, Windows
from fairlead.errors import StoreError
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath
from fairlead.flow.spending import Window


class Database:
    """A journal behind SQLAlchemy Core. Every method may block; none may be called from two threads."""

    def __init__(self, backend: Backend, *, sync_delay_seconds: float) -> None:
        self._backend = backend
        self._statements = Statements(backend.insert)
        self._sync_delay_seconds = sync_delay_seconds
        self._connection: Connection | None = None

    def open(self) -> str:
        """Become the owner, bring the schema to head and return the store's id.

        Raises:
            StoreLocked: another process owns the store.
            StoreError: it cannot be opened.
        """
        self._connection = self._backend.open()
        try:
            upgrade(self._connection)
            with self._connection.begin():
                fresh = {"id": str(uuid.uuid4()), "audit-key": secrets.token_hex(32)}
                rows = [{"key": key, "value": value} for key, value in fresh.items()]
                self._connection.execute(self._statements.put_meta, rows)
            return self._meta("id")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up the connection and the ownership."""
        self._connection = None
        self._backend.close()

    def commit(self, batch: Batch) -> float:
        """Write a batch in one transaction and return the seconds that it took.

        Raises:
            StoreLocked: another process owns the store by now; nothing was written.
        """
        begun = time.perf_counter()
        with self._connected.begin():
            self._backend.renew(self._connected)
            self._write(batch)
            if self._sync_delay_seconds:
                time.sleep(self._sync_delay_seconds)
        return time.perf_counter() - begun

    def load(self, run_uid: RunUid) -> list[Entry]:
        """Return a run's journal in order, payloads put back: each is there once, however many entries have it."""
        read = cache(lambda digest: value_of(self._payload(digest)))
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
                put_back(row.data, row.payloads, read),
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

    def last_number(self) -> int:
        """Return the number of the run that began last; 0 before there is one."""
        return int(self._rows(select(func.coalesce(func.max(schema.runs.c.number), 0)))[0][0])

    def pods_left(self, since_ms: int) -> list[tuple[str, str]]:
        """Return name and UID of the pods that were started since then and have done their work."""
        entries, runs = schema.entries.c, schema.runs.c
        kinds = (EntryKind.POD_STARTED.value, EntryKind.CALL_OUTCOME.value)
        mine = schema.entries.join(schema.runs, entries.run_uid == runs.uid)
        query = select(entries.run_uid, entries.kind, entries.path, entries.attempt, entries.data, runs.state)
        query = query.select_from(mine).where((runs.state == OPEN) | (runs.ended_at >= since_ms))
        query = query.where(entries.kind.in_(kinds), entries.at >= since_ms)
        started, done = dict[tuple[Any, ...], tuple[str, str]](), set[tuple[Any, ...]]()
        for row in self._rows(query):
            data = orjson.loads(row.data)
            call = (row.run_uid, row.path, row.attempt, data["index"])
            if row.kind == EntryKind.POD_STARTED.value:
                started[call] = data["name"], data["uid"]
            if row.kind == EntryKind.CALL_OUTCOME.value or row.state != OPEN:
                done.add(call)
        return [pod for call, pod in started.items() if call in done]

    def pods_started(self, most: int, since_ms: int) -> list[PodRow]:
        """Return whose the pods are that were started last, newest first, of runs that are open or ended since then."""
        entries, runs = schema.entries.c, schema.runs.c
        mine = schema.entries.join(schema.runs, entries.run_uid == runs.uid)
        query = select(entries.run_uid, entries.path, entries.attempt, entries.data).select_from(mine)
        query = query.where((runs.state == OPEN) | (runs.ended_at >= since_ms))
        query = query.where(entries.kind == EntryKind.POD_STARTED.value)
        return [
            PodRow(orjson.loads(row.data)["uid"], RunUid(row.run_uid), RunPath(row.path), row.attempt)
            for row in self._rows(query.order_by(entries.at.desc()).limit(most))
        ]

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
        last = self._rows(select(anchors.n, anchors.anchor).order_by(anchors.n.desc()).limit(1))
        newest = select(audit.record).where(audit.run_uid == runs.uid).order_by(audit.n.desc()).limit(1)
        number = select(audit.n).where(audit.run_uid == runs.uid).order_by(audit.n.desc()).limit(1)
        first = schema.runs.join(schema.entries, (entries.run_uid == runs.uid) & (entries.seq == 1))
        columns = (newest.scalar_subquery().label("record"), number.scalar_subquery().label("number"))
        found = select(runs.uid, entries.data, *columns).select_from(first)
        return (_end_of(last[0].n, last[0].anchor) if last else AuditHead()), {
            RunUid(row.uid): (orjson.loads(row.data), _end_of(row.number, row.record))
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
        do = self._statements
        bodies = [{"digest": key, "bytes": len(body), "data": compress(body)} for key, body in batch.payloads.items()]
        for statement, rows in (
            (do.put_revisions, [{"digest": key, "spec": spec} for key, spec in batch.revisions.items()]),
            (do.put_runs, batch.runs),
            (do.put_payloads, bodies),
            (do.put_payload_refs, batch.refs),
            (do.put_entries, batch.rows),
            (do.put_audit, batch.audit),
            (do.put_anchors, batch.anchors),
            (do.park_runs, [{"run": uid, "at": at} for uid, at in batch.wakes.items()]),
            (do.close_runs, [{"run": uid, "ended": end.kind.value, "at": end.at} for uid, end in batch.closed.items()]),
            (do.forget_runs, [{"run": uid, "at": at} for uid, at in batch.forgotten.items()]),
        ):
            if rows:
                self._connected.execute(statement, rows)
        for uid in batch.forgotten:
            self._forget(uid)
        for change, values in (
            (do.drop_runs, [{"run": uid} for uid in batch.dropped]),
            (do.put_schedules, [_schedule(key, row) for key, row in batch.schedules.items() if row is not None]),
            (do.put_windows, [w._asdict() | asdict(spent) for w, spent in batch.windows.items()]),
            (do.drop_schedules, [{"uid": u, "schedule": n} for (u, n), row in batch.schedules.items() if row is None]),
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
            .order_by(runs.c.number)
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


def _end_of(number: int | None, last: bytes | None) -> AuditHead:
    """Return the end of a chain whose last link this is, whatever somebody made of it: the verification tells."""
    return AuditHead(number, record_hash(readable(last))) if number is not None and last is not None else AuditHead()


def _schedule(key: ScheduleKey, row: ScheduleRow) -> dict[str, Any]:
    return {"workflow_uid": key[0], "name": key[1], "definition": row.definition, "decided_at": row.decided_at}
