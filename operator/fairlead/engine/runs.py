"""All runs that have not ended: accepted, queued for a place, driven, parked, woken, cancelled, recovered.

One loop looks at what changed, at what is due, and at free places; every active run has a driver task beside it. A
run is identified by its object's UID and begins once in the life of a store, so it is never executed twice.

An unexpected exception in a driver ends neither the process nor the run: the run is set aside, its condition says so
with the trace id, and it is loaded from its journal and tried again later, as after a restart. Past its deadline it
ends with Timeout, so that a run is terminal in bounded time whatever its fault (G4).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import is_true
from fairlead.api.run import InputFrom, RetryFrom, WorkflowRun
from fairlead.engine.acceptance import GRACE_MS, Accept, Refuse, Resolve, Wait, judge
from fairlead.engine.alarms import Alarms
from fairlead.engine.approvals import Approvals
from fairlead.engine.beginning import lost_draft, mirrored_draft, never_begun_draft, overdue_draft
from fairlead.engine.children import Children
from fairlead.engine.concurrency import Turns
from fairlead.engine.demands import demands_nothing
from fairlead.engine.endings import Endings
from fairlead.engine.reporter import Reporter
from fairlead.engine.roster import Roster, Run, Standing, alone, parsed_run
from fairlead.engine.runner import Runner
from fairlead.engine.seams import Resources
from fairlead.engine.store import RunRow, Store
from fairlead.flow.approvals import undecided
from fairlead.flow.children import awaited
from fairlead.flow.journal import RunUid
from fairlead.flow.state import RunState
from fairlead.policy.decision import Authorization
from fairlead.telemetry.ids import trace_id

PLACES = 256
"""Runs that are driven at the same time, of one Workflow half of them; parked runs take no place."""

FIRST_RETRY_MS = 30_000
LONGEST_RETRY_MS = 600_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How runs are handled.

    Attributes:
        places: how many runs are driven at the same time.
        grace_ms: how long a run waits for its Workflow and permissions.
    """

    places: int = PLACES
    grace_ms: int = GRACE_MS


class Runs:
    """The registry and scheduler of all open runs."""

    def __init__(
        self,
        store: Store,
        *,
        resources: Resources,
        runner: Runner,
        authorization: Callable[[str], Authorization | None],
        roster: Roster,
        children: Children,
        approvals: Approvals,
        reporter: Reporter,
        clock: Callable[[], int],
        options: RunOptions | None = None,
    ) -> None:
        """Take the seams.

        Args:
            store: the journal.
            resources: what is declared.
            runner: begins, loads and drives a run.
            authorization: whether a Workflow's account has all that the Workflow names; None while not known.
            roster: the open runs; shared with the reporter.
            children: what parents and their child runs are to each other.
            approvals: what people were asked and decided.
            reporter: told what became of each run.
            clock: Unix time in ms.
            options: bounds.
        """
        self._store = store
        self._resources = resources
        self._runner = runner
        self._authorization = authorization
        self._reporter = reporter
        self._clock = clock
        self._options = options or RunOptions()
        self.roster = roster
        self._turns = Turns(resources, roster, places=self._options.places)
        self._alarms = Alarms()
        self._inbox: deque[RunUid] = deque()
        self._jobs: deque[Coroutine[Any, Any, None]] = deque()
        self._starting: deque[Run] = deque()
        self._woken = asyncio.Event()
        self._inherited: set[RunUid] = set()
        self._draining = False
        self._endings = Endings(store, runner=runner, roster=roster, reporter=reporter, on_end=self._forget)
        self._children, self._approvals = children, approvals
        children.attach(cancel=self._cancel, start=self._start)
        approvals.attach(start=self._start)

    # What the outside tells

    def observe(self, raw: Mapping[str, Any]) -> None:
        """Take note of a WorkflowRun as the cluster has it now. What breaks here breaks this run alone."""
        uid, published = RunUid(raw["metadata"]["uid"]), raw.get("status") or {}
        with alone(uid, self._store.failed):
            obj = parsed_run(raw)
            if obj is None:
                return
            run = self.roster.get(uid)
            finished = obj.status is not None and is_true(obj.status.conditions, "Finished")
            if run is not None:
                run.obj = obj
                if finished:
                    self._end_like_object(run, published)
                else:
                    self._heed(run)
            elif not finished:
                self._meet(obj, published)

    def gone(self, uid: RunUid) -> None:
        """Take note that a WorkflowRun was deleted: it is cancelled."""
        run = self.roster.get(uid)
        if run is not None and run.standing is Standing.WAITING and not run.parent:
            self.roster.remove(run)
            self._reporter.gone(run)
        elif run is not None:
            self._cancel(run, "the WorkflowRun was deleted")

    def workflow_changed(self, workflow: str) -> None:
        """Look again at the runs that wait for this Workflow."""
        self._inbox.extend(self.roster.waiting_for(workflow))
        self._woken.set()

    def end_of(self, uid: RunUid) -> asyncio.Future[RunState]:
        """Return the future of an open run's last state; ask before the run is observed, or it may be missed."""
        return self._endings.of(uid)

    # Recovery: complete before anything is served

    async def recover(self, objects: Mapping[RunUid, Mapping[str, Any]]) -> None:
        """Take over every open run of the store.

        Args:
            objects: the WorkflowRuns that exist, by UID. A run whose object is gone is cancelled, one whose object
                is finished ends here too, one whose object knows more than the store is lost.

        Raises:
            StoreError: the journal cannot be read.
        """
        self.roster.count_ended(await self._store.counts())
        self._inherited = set(self._store.ended_runs())
        parents = await self._store.open_parents()
        for row in await self._store.open_runs():
            await self._take_over(row, objects.get(row.uid), is_parent=row.uid in parents)
        self._children.recovered()
        await self._store.durable()

    async def _take_over(self, row: RunRow, raw: Mapping[str, Any] | None, *, is_parent: bool) -> None:
        run = Run(row.uid, row.name, row.workflow, seen_at_ms=self._clock(), key=row.key, deadline_ms=row.deadline_at)
        run.obj, run.retries = parsed_run(raw) if raw is not None else None, self._store.earlier(row.uid)
        self.roster.add(run, Standing.PARKED)
        if raw is None:
            run.cancel = "the WorkflowRun was deleted"
            self._start(run)
            return
        run.published = raw.get("status") or {}
        asked = self._children.asked_of(run)  # its parent is older, and here
        if run.obj is None or asked is None:
            return  # parked without a time: an object that is not understood goes on with a version that does
        lost = lost_draft(run.published, store_id=self._store.id, sequence=row.sequence)
        if run.obj.status is not None and is_true(run.obj.status.conditions, "Finished"):
            self._end_like_object(run, run.published)
        elif lost is not None:
            await self._endings.end(run, lost)
        elif (row.wake_at or 0) > self._clock() and demands_nothing(asked) and not is_parent:
            run.heeded = asked
            self._park(run, row.wake_at or 0)
        elif row.sequence == 1 and run.obj.spec.desired_state != "Cancelled":
            self._enqueue(run)
        else:
            await self._guarded(run, self._load(run))

    # The loop

    async def run(self) -> None:
        """Schedule until cancelled.

        Raises:
            ExceptionGroup: of a StoreError; the process must end.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                self._wake_due()
                while self._inbox and not self._draining:
                    run = self.roster.get(self._inbox.popleft())
                    if run is not None and run.standing is Standing.WAITING and run.obj is not None:
                        await self._guarded(run, self._consider(run, run.obj))
                self._fill_places()
                while self._jobs:
                    group.create_task(self._jobs.popleft())
                while self._starting:
                    run = self._starting.popleft()
                    if run.task is None and not self._draining and self.roster.goes_on(run):
                        run.task = group.create_task(self._execute(run))
                await self._sleep()

    async def drain(self, timeout_seconds: float) -> None:
        """Begin nothing more, let recorded calls finish for a while, and make everything durable."""
        self._draining = True
        active = [run for run in self.roster.all() if run.task is not None]
        for run in active:
            if run.log is not None:
                run.log.drain()
        tasks = [run.task for run in active if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_seconds)
        self.roster.abandon()
        await self._store.durable()

    def wake(self) -> None:
        """Let the loop look at everything again."""
        self._woken.set()

    async def _sleep(self) -> None:
        next_ms = self._alarms.next_ms()
        timer = None
        if next_ms is not None:
            seconds = max(0, next_ms - self._clock()) / 1000
            timer = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        await self._woken.wait()
        if timer is not None:
            timer.cancel()

    def _wake_due(self) -> None:
        for uid in self._alarms.due(self._clock()):
            run = self.roster.get(uid)
            if run is not None and run.standing is Standing.WAITING:
                self._inbox.append(uid)
            elif run is not None:
                self._start(run)

    # Acceptance

    def _meet(self, obj: WorkflowRun, published: Mapping[str, Any]) -> None:
        uid = RunUid(obj.metadata.uid)
        run = Run(uid, obj.metadata.name, obj.spec.workflow, seen_at_ms=self._clock(), obj=obj, published=published)
        lost = lost_draft(published, store_id=self._store.id, sequence=None)
        if self._store.knows(uid):
            if uid in self._inherited:
                self._inherited.discard(uid)
                self._jobs.append(self._endings.publish(run))
        elif lost is not None:
            self.roster.add(run, Standing.WAITING)
            self._jobs.append(self._endings.end(run, lost))
        else:
            self.roster.add(run, Standing.WAITING)
            self._inbox.append(uid)
        self._woken.set()

    async def _consider(self, run: Run, obj: WorkflowRun) -> None:
        if why := run.cancel or self._children.unwanted(run):
            self._jobs.append(self._endings.end(run, never_begun_draft(why)))
            return
        workflow = self._resources.workflows.get(run.workflow)
        given, run.given = run.given, None
        verdict = judge(
            obj.spec,
            workflow,
            self._authorization(run.workflow) if workflow is not None else None,
            given=given,
            busy=self._turns.busy,
            over=self._runner.over_budget,
            unsafe=self._runner.unsafe,
            seen_at_ms=run.seen_at_ms,
            now_ms=self._clock(),
            grace_ms=self._options.grace_ms,
        )
        match verdict:
            case Refuse(draft):
                self._jobs.append(self._endings.end(run, draft))
            case Wait(reason, message, until_ms):
                if until_ms is not None:
                    self._alarms.set(run.uid, until_ms)
                self._reporter.waits(run, reason, message)
            case Resolve(source):
                self._jobs.append(self._guarded(run, self._read_input(run, source)))
            case Accept():
                first, plan = await self._runner.planned(run, verdict)
                if not self.roster.goes_on(run):
                    return  # it was deleted while its plan was made
                self._runner.begin(run, verdict, first, plan)
                if self._turns.at_once(run):
                    self._start(run)  # its first steps and the acceptance share a commit
                else:
                    run.note = self._turns.waits_for(run)
                    self._reporter.goes_on(run)
                    self._enqueue(run)

    async def _read_input(self, run: Run, source: InputFrom | RetryFrom) -> None:
        await self._runner.read_input(run, source, grace_ms=self._options.grace_ms)
        self._inbox.append(run.uid)
        self._woken.set()

    # Places

    def _enqueue(self, run: Run) -> None:
        """Let an accepted run wait for its turn: as a row, until its deadline at the latest."""
        self.roster.move(run, Standing.QUEUED)
        self._turns.push(run)
        run.log = None
        if run.deadline_ms:
            self._alarms.set(run.uid, run.deadline_ms)
        self._woken.set()

    def _fill_places(self) -> None:
        while not self._draining and (uid := self._turns.next()) is not None:
            run = self.roster.get(uid)
            if run is not None:
                self._start(run)

    def _start(self, run: Run) -> None:
        """Drive a run, now. What was parked, is due or is to be cancelled does not stand in line again."""
        self._turns.remove(run)
        if run.standing is Standing.PARKED:
            self._store.park(run.uid, None)
        elif run.standing is Standing.QUEUED:
            run.note = ""
        self.roster.move(run, Standing.ACTIVE)
        self._alarms.clear(run.uid)
        self._starting.append(run)
        self._woken.set()

    def _park(self, run: Run, wake_at_ms: int) -> None:
        self.roster.move(run, Standing.PARKED)
        run.awaits, run.log = awaited(run.log.state) if run.log is not None else None, None
        self._alarms.set(run.uid, wake_at_ms)
        self._woken.set()

    # Driving

    async def _execute(self, run: Run) -> None:
        await self._guarded(run, self._drive(run))
        run.task = None
        self._woken.set()

    async def _drive(self, run: Run) -> None:
        wake_at_ms, log = await self._runner.drive(run)
        run.note, run.retry_ms = "", 0
        if wake_at_ms is None:
            self._endings.finish(run, log.state, log.plan)
        elif not self._draining:
            # Only its journal says that a run is paused or asks people: after a restart it is loaded, not left alone.
            asks = bool(undecided(log.state.approvals.values()))
            self._store.park(run.uid, None if log.state.paused or asks else wake_at_ms)
            self._park(run, wake_at_ms)
            if self._children.overlooked(log.state) or self._approvals.overlooked(log.state):
                self._start(run)

    async def _load(self, run: Run) -> None:
        await self._runner.load(run)
        self._start(run)

    async def _guarded(self, run: Run, work: Coroutine[Any, Any, None]) -> None:
        """The boundary around one run: what breaks here breaks this run alone, for a while."""
        try:
            await work
        except Exception:
            if self._store.failed.is_set():
                raise
            trace = trace_id(run.uid)
            _log.exception("the run is set aside after an unexpected error", extra={"run": run.uid, "trace": trace})
            await self._set_aside(run, f"internal error, tried again later; see the engine's log for trace {trace}")

    async def _set_aside(self, run: Run, note: str) -> None:
        if self.roster.get(run.uid) is not run:
            return
        now_ms = self._clock()
        run.note, run.retry_ms = note, min(max(run.retry_ms * 2, FIRST_RETRY_MS), LONGEST_RETRY_MS)
        if run.standing is Standing.WAITING:
            self._alarms.set(run.uid, now_ms + run.retry_ms)
            return
        if run.log is not None:
            run.log.seal()
        if run.deadline_ms and now_ms >= run.deadline_ms:
            await self._endings.end(run, overdue_draft())
            return
        self._reporter.goes_on(run)
        at_ms = now_ms + run.retry_ms
        self._park(run, min(at_ms, run.deadline_ms) if run.deadline_ms else at_ms)

    # Demands and ends

    def _cancel(self, run: Run, why: str) -> None:
        run.cancel = run.cancel or why
        self._heed(run)

    def _heed(self, run: Run) -> None:
        """See to it that what is asked of a run and of its children gets into the journals: now or when next driven."""
        with alone(run.uid, self._store.failed):
            spec = self._children.asked_of(run)
            cancelled = bool(run.cancel) or (spec is not None and spec.desired_state == "Cancelled")
            match run.standing:
                case Standing.WAITING if cancelled:
                    self._inbox.append(run.uid)
                    self._woken.set()
                case Standing.QUEUED if cancelled:
                    self._start(run)
                case Standing.PARKED if run.cancel or spec != run.heeded:
                    self._start(run)
                case Standing.ACTIVE if run.log is not None:
                    self._runner.heed(run, run.log)
        for child in self.roster.children_of(run.uid):
            self._heed(child)

    def _end_like_object(self, run: Run, published: Mapping[str, Any]) -> None:
        """A finished object always wins: whatever the journal says, nothing of this run is executed any more."""
        if run.over:
            return
        run.stop()
        run.published = published
        self._jobs.append(self._endings.end(run, mirrored_draft(published), silent=True))
        self._woken.set()

    def _forget(self, run: Run, state: RunState) -> None:
        self._turns.remove(run)
        self._alarms.clear(run.uid)
        self._children.ended(run, state)
        self._approvals.ended(run, state)
        self._woken.set()
