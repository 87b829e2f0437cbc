"""One active run, driven: ask the core what is next, record it, start the calls, wait, ask again.

The driver decides nothing. It ends when the run has ended, or parks it when nothing is in flight and nothing is due
soon: a parked run is a row in the store and an entry in the scheduler's heap, no task (G7).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from fairlead.engine.binding import telling
from fairlead.engine.log import RunLog
from fairlead.engine.seams import Resources
from fairlead.errors import FairleadError
from fairlead.flow.calls import Call, CallId, CallIndex
from fairlead.flow.next import what_next

PARK_AFTER_MS = 5_000
"""A wait that is longer than this parks the run."""


RECORDS_IN_A_ROW = 16
"""After so many records without a pause other runs have their turn."""


class DriverStuck(FairleadError):
    """The core waits for nothing, or what was done left no record: a bug, and never a reason to spin."""


class Caller(Protocol):
    """What the driver needs of the gate."""

    async def call(self, log: RunLog, call: Call) -> None:
        """Take a call through all stages; what came of it stands in the journal."""
        ...


async def drive(log: RunLog, *, gate: Caller, resources: Resources, clock: Callable[[], int]) -> int | None:
    """Drive a run until it ends or parks.

    Args:
        log: the run.
        gate: the one way out.
        resources: what is declared now.
        clock: Unix time in ms.

    Returns:
        The Unix ms at which a parked run goes on (now, when it was drained); None when the run has ended. Either way
        everything is durable.

    Raises:
        StoreError: the journal cannot be written (in an ExceptionGroup when a call found out).
        DriverStuck: the run cannot go on by itself.
    """
    while True:
        async with asyncio.TaskGroup() as group:
            calls = _CallsInFlight(log, gate, group)
            try:
                wake_at_ms = await _advance(log, calls, resources=resources, clock=clock)
            except BaseException:
                log.abandon()  # before the calls are cancelled: nobody has asked for that
                raise
            calls.cancel_all()
        await log.durable()
        if wake_at_ms is None or log.draining or not log.stirred:
            return wake_at_ms


class _CallsInFlight:
    """The calls that were started, by identity: each at most once while the driver lives."""

    def __init__(self, log: RunLog, gate: Caller, group: asyncio.TaskGroup) -> None:
        self._log = log
        self._gate = gate
        self._group = group
        self._tasks: dict[CallId, asyncio.Task[None]] = {}
        self._wanted: set[CallId] = set()
        self._returned: set[CallId] = set()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    def become(self, wanted: tuple[Call, ...]) -> None:
        """Start what is not in flight yet; cancel what nobody wants any more.

        A paused run wants nothing new, but what is recorded goes on. Nor does a closing run, but an effect under way
        keeps its time to tell how it went.
        """
        for call in wanted:
            if call.id in self._returned:
                raise DriverStuck(f"the call {call.id.index} of {call.id.path} came back without a record")
            if call.id not in self._tasks:
                task = self._group.create_task(self._make(call))
                self._tasks[call.id] = task
                task.add_done_callback(partial(self._on_done, call.id))
        kept = self._wanted = {call.id for call in wanted}
        self._returned &= kept  # one that people are asked about may be wanted again later
        if self._log.state.closing is not None:
            kept = kept | self._recorded(reads=False)
        elif self._log.state.paused:
            kept = kept | self._recorded(reads=True)
        self._keep(kept)

    def finish(self) -> None:
        """Start nothing more; cancel what has no intent yet, which therefore did nothing."""
        self._keep(self._recorded(reads=True))

    def cancel_all(self) -> None:
        """Cancel what is left when the run has ended."""
        for task in self._tasks.values():
            task.cancel()

    async def _make(self, call: Call) -> None:
        try:
            await self._gate.call(self._log, call)
        except Exception:
            self._log.abandon()  # before the calls beside it are cancelled
            raise

    def _keep(self, kept: set[CallId]) -> None:
        for call_id, task in self._tasks.items():
            if call_id not in kept:
                task.cancel()

    def _recorded(self, *, reads: bool) -> set[CallId]:
        state = self._log.state
        recorded = ((path, state.steps[path], index) for path, index in state.open_calls)
        return {
            CallId(path, step.attempt, CallIndex.parse(index))
            for path, step, index in recorded
            if reads or step.calls[index].effect != "Read"
        }

    def _on_done(self, call_id: CallId, task: asyncio.Task[None]) -> None:
        del self._tasks[call_id]
        if call_id in self._wanted and not task.cancelled():  # what a pause took back may be wanted again
            self._returned.add(call_id)
        if call_id in self._wanted or not self._tasks:  # else the driver has seen already what came of it
            self._log.wake()


async def _advance(log: RunLog, calls: _CallsInFlight, *, resources: Resources, clock: Callable[[], int]) -> int | None:
    in_a_row = 0
    while log.state.terminal is None:
        now_ms = clock()
        if log.draining:
            log.look()
            calls.finish()
            if not calls:
                return now_ms
            await log.woken(None)
            continue
        upcoming = what_next(log.plan, log.look(), now_ms, resources)
        if upcoming.records:
            before = log.state.seq
            log.append(*telling(log, resources, upcoming.records))
            if log.state.seq == before:
                raise DriverStuck("the journal takes nothing more of this run")
            in_a_row += 1
            if in_a_row % RECORDS_IN_A_ROW == 0:
                await asyncio.sleep(0)  # a long chain of pure steps leaves room for other runs
            continue
        calls.become(upcoming.calls)
        if not calls and upcoming.wake_at_ms is None:
            raise DriverStuck("nothing is in flight and nothing is due")
        if not calls and upcoming.wake_at_ms is not None and upcoming.wake_at_ms - now_ms > PARK_AFTER_MS:
            return upcoming.wake_at_ms
        await log.woken(max(upcoming.wake_at_ms - now_ms, 0) / 1000 if upcoming.wake_at_ms is not None else None)
    return None
