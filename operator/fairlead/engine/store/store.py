"""The store as the engine sees it: stamp now, commit together (`commits.py`), and tell when it is durable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fairlead.api.canonical import canonical_json
from fairlead.engine.audit.trail import AuditHead, Trail
from fairlead.engine.store.backend import Place
from fairlead.engine.store.commits import Commits, Committed
from fairlead.engine.store.payloads import put_aside
from fairlead.engine.store.rows import OPEN, AuditPlace, Batch, EndedRun, PodRow, RunRow, ScheduleKey, ScheduleRow
from fairlead.engine.store.sqlite import Sqlite
from fairlead.engine.store.windows import Spent, Windows
from fairlead.errors import StoreError
from fairlead.flow.journal import TERMINAL, Draft, Entry, RunUid
from fairlead.flow.spending import Window

T = TypeVar("T")


@dataclass(slots=True)
class _Head:
    """The end of an open run's journal."""

    workflow: str
    seq: int = 0
    at: int = 0


class Store:
    """The journal of all runs. Open with `Store.open`; one process owns it.

    Attributes:
        id: a UUID made with the database; a lost volume has another one.
        failed: set once a write has failed; the process must end.
    """

    def __init__(self, commits: Commits, *, clock: Callable[[], int]) -> None:
        self.id = ""
        self.failed = commits.failed
        self._commits = commits
        self._database = commits.database
        self._clock = clock
        self._heads: dict[RunUid, _Head] = {}
        self._earlier: dict[RunUid, RunUid] = {}
        self._last_number = 0
        self._ended: dict[RunUid, EndedRun] = {}
        self._forgotten: dict[RunUid, EndedRun] = {}
        self._trail = Trail(b"", AuditHead())
        self._windows = Windows({})

    @classmethod
    async def open(
        cls,
        place: Place,
        *,
        clock: Callable[[], int],
        mountinfo: str = "",
        sync_delay_seconds: float = 0.0,
        on_commit_seconds: Callable[[float], None] = lambda seconds: None,
        on_waiting: Callable[[StoreError], None] = lambda error: None,
    ) -> Store:
        """Open or create the store at `place` and bring its schema to this version's; wait where others may own it.

        Args:
            place: the database file, whose directory exists; or a backend, such as PostgreSQL.
            clock: Unix time in ms.
            mountinfo: the text of /proc/self/mountinfo where network file systems must be refused; "" to not look.
            sync_delay_seconds: added to every commit, to see how the engine behaves on a slow disk.
            on_commit_seconds: told how long each commit took.
            on_waiting: told why it is not opened yet, each time.

        Raises:
            StoreLocked: another process holds it, and shall not be waited for.
            StoreError: it is on a network file system, or is no store.
        """
        backend = Sqlite(place, mountinfo) if isinstance(place, Path) else place
        commits = Commits(backend, sync_delay_seconds=sync_delay_seconds, on_seconds=on_commit_seconds)
        store = cls(commits, clock=clock)
        try:
            store.id = await commits.own(on_waiting)
            await store._read_back()
        except BaseException:
            await store.close()
            raise
        return store

    async def _read_back(self) -> None:
        read = self._commits.in_thread
        self._ended, self._forgotten = await read(self._database.ended_runs)
        self._windows = await read(self._database.windows)
        self._last_number = await read(self._database.last_number)
        anchors, ends = await read(self._database.audit_ends)
        self._trail = Trail(await read(self._database.audit_key), anchors)
        for uid, (accepted, end) in ends.items():
            self._trail.resume(uid, accepted, end)
            if uid in self._ended:  # its last status may not have been written
                self._trail.end(uid)
        for row in await read(self._database.open_runs):
            if not row.sequence:
                self._commits.batch().dropped.append(row.uid)  # its process was killed before it began
                continue
            self._heads[row.uid] = _Head(row.workflow, row.sequence, row.last_at)
            accepted, _ = ends.get(row.uid, ({}, None))
            if retry := accepted.get("retryFrom"):
                self._earlier[row.uid] = RunUid(retry["uid"])

    def subscribe(self, committed: Committed) -> None:
        """Call `committed` on the event loop after every commit, with its entries in order."""
        self._commits.subscribers.append(committed)

    def knows(self, run_uid: RunUid) -> bool:
        """Tell whether the run has or had a journal here: it never begins again."""
        return run_uid in self._heads or run_uid in self._ended or run_uid in self._forgotten

    def earlier(self, run_uid: RunUid) -> RunUid | None:
        """Return the run that one goes on from which was open when the store was; None if it goes on from none."""
        return self._earlier.get(run_uid)

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
        self._commits.check()
        if self.knows(run_uid):
            raise StoreError(f"the run {run_uid} has begun before")
        self._heads[run_uid] = _Head(workflow)
        self._last_number += 1
        row: dict[str, Any] = {"uid": run_uid, "number": self._last_number, "state": OPEN}
        row |= {"namespace": namespace, "name": name, "workflow": workflow}
        times = {"accepted_at": self._clock(), "wake_at": None, "deadline_at": deadline_at}
        self._commits.batch().runs.append(row | times | {"concurrency_key": key})

    def append(self, run_uid: RunUid, drafts: Sequence[Draft]) -> list[Entry]:
        """Stamp drafts and queue them for the next commit.

        Returns:
            The entries; nothing after a terminal entry, because a terminal run never changes.

        Raises:
            StoreError: an earlier write failed.
            TypeError: a draft's data is not JSON; nothing was appended.
        """
        self._commits.check()
        head, entries = self._heads.get(run_uid), list[Entry]()
        for draft, data, refs, bodies in [(draft, *put_aside(draft.data)) for draft in drafts]:
            if head is None:
                break
            batch = self._commits.batch()
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
        self._commits.check()
        self._audit(self._commits.batch(), self._trail.late(run_uid, draft, self._clock()))

    def refused(self, run_uid: RunUid, draft: Draft) -> None:
        """Record what was refused to a pod of a run before it was a call; nothing of a run that nobody remembers.

        It is no entry. A chain that grows when its run has ended is anchored at once.
        """
        self._commits.check()
        row = self._trail.refused(run_uid, draft, self._clock())
        if row is not None:
            self._audit(self._commits.batch(), row)
            if run_uid not in self._heads:
                self._anchor(self._commits.batch(), run_uid, row["at"])

    def audit_head(self, run_uid: RunUid) -> AuditHead | None:
        """Return the end of a run's audit; None of one that ended long ago."""
        return self._trail.head(run_uid)

    def anchor(self) -> AuditHead:
        """Add the heads of the open runs to the chain of anchors, and return its end."""
        self._commits.check()
        for run_uid in self._trail.open_runs():
            self._anchor(self._commits.batch(), run_uid, self._clock())
        return self._trail.anchors

    def prune_audit(self, before_ms: int) -> None:
        """Delete the audit of runs whose journal is gone and that have had no record since then, and old windows."""
        self._commits.check()
        self._commits.batch().audit_before = before_ms
        self._windows.forget(before_ms)

    def spent(self, window: Window) -> Spent:
        """Return what was used in a window."""
        return self._windows.of(window)

    def spend(self, window: Window, *, tokens: int = 0, cost: int = 0, runs: int = 0) -> None:
        """Count in a window, in the commit of what was appended before; negative gives back."""
        self._commits.check()
        self._commits.batch().windows[window] = self._windows.add(window, tokens=tokens, cost=cost, runs=runs)

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
        self._commits.check()
        self._commits.batch().wakes[run_uid] = wake_at_ms

    def forget(self, run_uid: RunUid) -> None:
        """Delete the journal of a run that has ended, and the payloads that no other run refers to.

        That it was stays known until `drop`, so that an object that outlives its journal is not executed again.
        """
        self._commits.check()
        ended = self._ended.pop(run_uid, None)
        if ended is not None:
            self._forgotten[run_uid] = replace(ended, at=self._clock())
            self._commits.batch().forgotten[run_uid] = self._forgotten[run_uid].at

    def drop(self, run_uid: RunUid) -> None:
        """Let go even of the knowledge that a forgotten run was; its object must be gone for good."""
        self._commits.check()
        if self._forgotten.pop(run_uid, None) is not None:
            self._commits.batch().dropped.append(run_uid)

    async def durable(self) -> None:
        """Return when everything that was appended so far is committed.

        Raises:
            StoreError: it is not, and nothing will be any more.
        """
        await self._commits.durable()

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

    async def pods_left(self, since_ms: int) -> list[tuple[str, str]]:
        """Return name and UID of the pods started since then whose calls have their outcome."""
        return await self._read(self._database.pods_left, since_ms)

    async def pods_started(self, most: int, since_ms: int) -> list[PodRow]:
        """Return whose the pods are that were started last, newest first."""
        return await self._read(self._database.pods_started, most, since_ms)

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many runs there are by (Workflow, state)."""
        return await self._read(self._database.counts)

    async def payload(self, run_uid: RunUid, digest: str) -> bytes | None:
        """Return a payload's canonical JSON, None if this run does not refer to it."""
        return await self._read(self._database.payload, run_uid, digest)

    async def put_revision(self, digest: str, spec: dict[str, Any]) -> None:
        """Freeze a spec under its digest; durable with the next commit at the latest."""
        self._commits.check()
        self._commits.batch().revisions[digest] = canonical_json(spec)

    async def revision(self, digest: str) -> dict[str, Any] | None:
        """Return a frozen spec."""
        return await self._read(self._database.revision, digest)

    async def schedules(self) -> dict[ScheduleKey, ScheduleRow]:
        """Return how far every schedule is, by Workflow UID and name."""
        return await self._read(self._database.schedules)

    def put_schedule(self, key: ScheduleKey, row: ScheduleRow | None) -> None:
        """Note how far a schedule is; None when it is no more."""
        self._commits.check()
        self._commits.batch().schedules[key] = row

    async def close(self) -> None:
        """Commit what was appended and give up the database; once."""
        await self._commits.close()

    async def _read(self, read: Callable[..., T], *arguments: object) -> T:
        await self.durable()
        return await self._commits.in_thread(read, *arguments)

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
