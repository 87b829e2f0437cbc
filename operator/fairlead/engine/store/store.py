"""The store as the engine sees it: stamp now, commit together, and tell when it is durable.

Lives on the event loop; all of SQLite happens in one thread of its own (`database.py`). Appends gather in a batch.
`durable()` hands the batch to the thread at once, and what is appended while a commit runs shares the next one:
that is the group commit. An append that nobody waits for is committed after FLUSH_SECONDS at the latest.

A write that fails is the end: every waiter gets a StoreError, every later call too, and the process exits. No record,
no action.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from fairlead.api.canonical import canonical_json
from fairlead.engine.audit.trail import AuditHead, Trail
from fairlead.engine.store.database import OPEN, AuditPlace, Batch, Database, EndedRun, RunRow, ScheduleKey, ScheduleRow
from fairlead.engine.store.lock import StoreLock, refuse_network_file_system
from fairlead.engine.store.payloads import put_aside
from fairlead.engine.store.windows import Spent, Windows
from fairlead.errors import StoreError
from fairlead.flow.journal import TERMINAL, Draft, Entry, RunUid
from fairlead.flow.spending import Window

FLUSH_SECONDS = 0.005
"""How long an append waits for somebody to need it durable."""

T = TypeVar("T")
Committed = Callable[[Sequence[Entry]], None]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Head:
    """The end of an open run's journal."""

    workflow: str
    seq: int = 0
    at: int = 0


@dataclass(slots=True)
class _Gathering:
    """The batch that is being filled, and the future of its commit."""

    done: asyncio.Future[None]
    batch: Batch = field(default_factory=Batch)
    empty: bool = True


class Store:
    """The journal of all runs. Open with `Store.open`; one per process and path.

    Attributes:
        id: a UUID made with the database; a lost volume has another one.
        failed: set once a write has failed; the process must end.
    """

    def __init__(
        self,
        database: Database,
        lock: StoreLock,
        *,
        clock: Callable[[], int],
        on_commit_seconds: Callable[[float], None],
    ) -> None:
        self.id = ""
        self.failed = asyncio.Event()
        self._database = database
        self._lock = lock
        self._clock = clock
        self._on_commit_seconds = on_commit_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._loop = asyncio.get_running_loop()
        self._heads: dict[RunUid, _Head] = {}
        self._ended: dict[RunUid, EndedRun] = {}
        self._forgotten: dict[RunUid, EndedRun] = {}
        self._gathering = self._gather()
        self._committing: _Gathering | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._error: StoreError | None = None
        self._closed = False
        self._subscribers: list[Committed] = []
        self._trail = Trail(b"", AuditHead())
        self._windows = Windows({})

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        clock: Callable[[], int],
        mountinfo: str = "",
        sync_delay_seconds: float = 0.0,
        on_commit_seconds: Callable[[float], None] = lambda seconds: None,
    ) -> Store:
        """Open or create the store at `path` and bring its schema to this version's.

        Args:
            path: the database file; its directory exists.
            clock: Unix time in ms.
            mountinfo: the text of /proc/self/mountinfo where network file systems must be refused; "" to not look.
            sync_delay_seconds: added to every commit, to see how the engine behaves on a slow disk.
            on_commit_seconds: told how long each commit took.

        Raises:
            StoreLocked: another process holds it.
            StoreError: it is on a network file system, or is no store.
        """
        refuse_network_file_system(path.parent, mountinfo)
        lock = StoreLock(path)
        lock.take()
        store = cls(
            Database(path, sync_delay_seconds=sync_delay_seconds),
            lock,
            clock=clock,
            on_commit_seconds=on_commit_seconds,
        )
        try:
            store.id = await store._in_thread(store._database.open)
            store._ended, store._forgotten = await store._in_thread(store._database.ended_runs)
            store._windows = await store._in_thread(store._database.windows)
            anchors, ends = await store._in_thread(store._database.audit_ends)
            store._trail = Trail(await store._in_thread(store._database.audit_key), anchors)
            for uid, (accepted, end) in ends.items():
                store._trail.resume(uid, accepted, end)
                if uid in store._ended:  # its last status may not have been written
                    store._trail.end(uid)
            for row in await store._in_thread(store._database.open_runs):
                store._heads[row.uid] = _Head(row.workflow, row.sequence, row.last_at)
        except StoreError:
            await store.close()
            raise
        return store

    def subscribe(self, committed: Committed) -> None:
        """Call `committed` on the event loop after every commit, with its entries in order."""
        self._subscribers.append(committed)

    def knows(self, run_uid: RunUid) -> bool:
        """Tell whether the run has or had a journal here: it never begins again."""
        return run_uid in self._heads or run_uid in self._ended or run_uid in self._forgotten

    def ended_runs(self) -> Mapping[RunUid, EndedRun]:
        """Return the runs that have ended and have their journal here."""
        return self._ended

    def ended(self, run_uid: RunUid) -> bool:
        """Tell whether the run has a journal here that has come to its end."""
        return run_uid in self._ended

    def forgotten_runs(self) -> Mapping[RunUid, EndedRun]:
        """Return the runs of which nothing is left but that they were."""
        return self._forgotten

    def begin(
        self, run_uid: RunUid, *, namespace: str, name: str, workflow: str, key: str = "", deadline_at: int = 0
    ) -> None:
        """Make a run known; its first entries follow in the same commit.

        Args:
            run_uid: the WorkflowRun's UID.
            namespace: where it is.
            name: the WorkflowRun's name.
            workflow: the Workflow's name.
            key: the concurrency key.
            deadline_at: Unix ms; 0 for a run that is not accepted.

        Raises:
            StoreError: it is known already. A run is never executed twice.
        """
        self._check()
        if self.knows(run_uid):
            raise StoreError(f"the run {run_uid} has begun before")
        self._heads[run_uid] = _Head(workflow)
        row = {"uid": run_uid, "namespace": namespace, "name": name, "workflow": workflow, "state": OPEN}
        times = {"accepted_at": self._clock(), "wake_at": None, "deadline_at": deadline_at}
        self._open_batch().runs.append(row | times | {"concurrency_key": key})

    def append(self, run_uid: RunUid, drafts: Sequence[Draft]) -> list[Entry]:
        """Stamp drafts and queue them for the next commit.

        Returns:
            The entries; nothing after a terminal entry, because a terminal run never changes.

        Raises:
            StoreError: an earlier write failed.
            TypeError: a draft's data is not JSON; nothing was appended.
        """
        self._check()
        head, entries = self._heads.get(run_uid), list[Entry]()
        for draft, data, refs, bodies in [(draft, *put_aside(draft.data)) for draft in drafts]:
            if head is None:
                break
            batch = self._open_batch()
            head.seq, head.at = head.seq + 1, max(head.at, self._clock())
            entry = Entry(run_uid, head.seq, head.at, draft.kind, draft.path, draft.attempt, draft.data)
            entries.append(entry)
            batch.entries.append(entry)
            batch.rows.append(
                {
                    "run_uid": run_uid,
                    "seq": entry.seq,
                    "at": entry.at,
                    "kind": entry.kind.value,
                    "path": entry.path,
                    "attempt": entry.attempt,
                    "data": data,
                    "payloads": canonical_json(refs) if refs else None,
                }
            )
            batch.payloads |= bodies
            batch.refs += [{"run_uid": run_uid, "digest": digest} for digest in bodies]
            self._audit(batch, self._trail.record(entry))
            if draft.kind in TERMINAL:
                self._close_run(batch, head, entry)
                head = None
        return entries

    def late(self, run_uid: RunUid, draft: Draft) -> None:
        """Record an answer that came when its call was settled already: it changes nothing but the audit."""
        self._check()
        self._audit(self._open_batch(), self._trail.late(run_uid, draft, self._clock()))

    def audit_head(self, run_uid: RunUid) -> AuditHead | None:
        """Return the end of a run's audit; None of one that ended long ago."""
        return self._trail.head(run_uid)

    def anchor(self) -> AuditHead:
        """Add the heads of the open runs to the chain of anchors, and return its end."""
        self._check()
        for run_uid in self._trail.open_runs():
            self._anchor(self._open_batch(), run_uid, self._clock())
        return self._trail.anchors

    def prune_audit(self, before_ms: int) -> None:
        """Delete the audit of runs whose journal is gone and that have had no record since then, and old windows."""
        self._check()
        self._open_batch().audit_before = before_ms
        self._windows.forget(before_ms)

    def spent(self, window: Window) -> Spent:
        """Return what was used in a window."""
        return self._windows.of(window)

    def spend(self, window: Window, *, tokens: int = 0, cost: int = 0, runs: int = 0) -> None:
        """Count in a window, in the commit of what was appended before; negative gives back."""
        self._check()
        self._open_batch().windows[window] = self._windows.add(window, tokens=tokens, cost=cost, runs=runs)

    async def audit_of(self, run_uid: RunUid) -> list[bytes]:
        """Return a run's audit records as canonical JSON, in the order of its chain."""
        return await self._read(self._database.audit_of, run_uid)

    async def audit_after(self, after: AuditPlace, most: int) -> list[tuple[AuditPlace, bytes]]:
        """Return audit records of all runs in the order of time, after a place."""
        return await self._read(self._database.audit_after, after, most)

    async def anchors(self) -> list[bytes]:
        """Return the anchors as canonical JSON, in their order."""
        return await self._read(self._database.anchors)

    def park(self, run_uid: RunUid, wake_at_ms: int | None) -> None:
        """Note when a parked run goes on; None when it does again."""
        self._check()
        self._open_batch().wakes[run_uid] = wake_at_ms

    def forget(self, run_uid: RunUid) -> None:
        """Delete the journal of a run that has ended, and the payloads that no other run refers to.

        That it was stays known until `drop`, so that an object that outlives its journal is not executed again.
        """
        self._check()
        ended = self._ended.pop(run_uid, None)
        if ended is not None:
            self._forgotten[run_uid] = replace(ended, at=self._clock())
            self._open_batch().forgotten[run_uid] = self._forgotten[run_uid].at

    def drop(self, run_uid: RunUid) -> None:
        """Let go even of the knowledge that a forgotten run was; its object must be gone for good."""
        self._check()
        if self._forgotten.pop(run_uid, None) is not None:
            self._open_batch().dropped.append(run_uid)

    async def durable(self) -> None:
        """Return when everything that was appended so far is committed.

        Raises:
            StoreError: it is not, and nothing will be any more.
        """
        self._check()
        if not self._gathering.empty:
            waiting_for = self._gathering
            self._flush()
        elif self._committing is not None:
            waiting_for = self._committing
        else:
            return
        await asyncio.shield(waiting_for.done)

    async def load(self, run_uid: RunUid) -> list[Entry]:
        """Return a run's journal in order."""
        return await self._read(self._database.load, run_uid)

    async def run(self, run_uid: RunUid) -> RunRow | None:
        """Return what is known of one run."""
        return await self._read(self._database.run, run_uid)

    async def run_named(self, name: str) -> RunRow | None:
        """Return the last run of this name that has its journal here."""
        return await self._read(self._database.run_named, name)

    async def runs(self) -> list[RunRow]:
        """Return every run, oldest first."""
        return await self._read(self._database.runs)

    async def open_runs(self) -> list[RunRow]:
        """Return every run that has not ended, oldest first."""
        return await self._read(self._database.open_runs)

    async def open_parents(self) -> set[RunUid]:
        """Return the open runs that have started a child run."""
        return await self._read(self._database.open_parents)

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many runs there are by (Workflow, state)."""
        return await self._read(self._database.counts)

    async def payload(self, run_uid: RunUid, digest: str) -> bytes | None:
        """Return a payload's canonical JSON, None if this run does not refer to it."""
        return await self._read(self._database.payload, run_uid, digest)

    async def put_revision(self, digest: str, spec: dict[str, Any]) -> None:
        """Freeze a spec under its digest; durable with the next commit at the latest."""
        self._check()
        self._open_batch().revisions[digest] = canonical_json(spec)

    async def revision(self, digest: str) -> dict[str, Any] | None:
        """Return a frozen spec."""
        return await self._read(self._database.revision, digest)

    async def schedules(self) -> dict[ScheduleKey, ScheduleRow]:
        """Return how far every schedule is, by Workflow UID and name."""
        return await self._read(self._database.schedules)

    def put_schedule(self, key: ScheduleKey, row: ScheduleRow | None) -> None:
        """Note how far a schedule is; None when it is no more."""
        self._check()
        self._open_batch().schedules[key] = row

    async def close(self) -> None:
        """Commit what was appended, close the database and give up the lock; once."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._error is None:
                await self.durable()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await self._loop.run_in_executor(self._thread, self._database.close)
            self._thread.shutdown()
            self._lock.release()
            self._error = self._error or StoreError("the store is closed")

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        await self.durable()
        return await self._in_thread(read, *arguments)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await self._loop.run_in_executor(self._thread, work, *arguments)
        except SQLAlchemyError as error:
            raise StoreError(f"the store cannot be read: {_plain(error)}") from error

    def _audit(self, batch: Batch, row: dict[str, Any] | None) -> None:
        if row is not None:
            batch.audit.append(row)

    def _anchor(self, batch: Batch, run_uid: RunUid, at_ms: int) -> None:
        row = self._trail.anchor(run_uid, at_ms)
        if row is not None:
            batch.anchors.append(row)

    def _close_run(self, batch: Batch, head: _Head, entry: Entry) -> None:
        self._anchor(batch, entry.run_uid, entry.at)
        self._trail.end(entry.run_uid)
        batch.closed[entry.run_uid] = entry
        self._ended[entry.run_uid] = EndedRun(head.workflow, entry.kind.value, entry.at)
        del self._heads[entry.run_uid]

    def _gather(self) -> _Gathering:
        done: asyncio.Future[None] = self._loop.create_future()
        done.add_done_callback(lambda future: future.exception())  # a failure that nobody waits for is no warning
        return _Gathering(done)

    def _open_batch(self) -> Batch:
        if self._gathering.empty:
            self._gathering.empty = False
            self._timer = self._loop.call_later(FLUSH_SECONDS, self._flush)
        return self._gathering.batch

    def _flush(self) -> None:
        if self._committing is not None or self._gathering.empty or self._error is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._committing, self._gathering = self._gathering, self._gather()
        commit = self._loop.run_in_executor(self._thread, self._database.commit, self._committing.batch)
        commit.add_done_callback(self._on_committed)

    def _on_committed(self, commit: asyncio.Future[float]) -> None:
        written, self._committing = self._committing, None
        assert written is not None
        error = commit.exception()
        if error is not None:
            self._fail(error, written)
            return
        self._on_commit_seconds(commit.result())
        written.done.set_result(None)
        self._flush()
        for subscriber in self._subscribers:
            subscriber(written.batch.entries)

    def _fail(self, error: BaseException, written: _Gathering) -> None:
        log.critical("the journal cannot be written; the engine ends", exc_info=error)
        self._error = StoreError(f"the journal cannot be written: {_plain(error)}")
        self.failed.set()
        for waiting in (written, self._gathering):
            waiting.done.set_exception(self._error)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


def _plain(error: BaseException) -> str:
    """Return the database's words without the statement and its parameters, which hold content."""
    return str(getattr(error, "orig", None) or type(error).__name__)
