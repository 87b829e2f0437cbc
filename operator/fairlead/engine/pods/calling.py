"""Containers that may call models and tools, while they are under way: each knows its run, its attempt and its pod.

What a container asks for is a call of its step beside the step's own one, and takes the same way through the gate. The
pod's sidecar numbers what is asked for, so that a request that comes again - its answer was lost, or the engine died -
is the same call: it waits for the one that is in flight, or gets the outcome that is on record.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fairlead.api.container import MOST_CALLS
from fairlead.engine.pods.refusals import Refusals
from fairlead.engine.store.rows import PodRow
from fairlead.errors import FairleadError, NotFound
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, FromPod
from fairlead.flow.recover import abandoned, open_calls
from fairlead.flow.state import CallState, RunState, StepState

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog

ARRIVAL_SECONDS = 5.0
"""How long a pod that nobody knows is waited for: its call may be about to be recorded."""

TAKEOVER_SECONDS = 60.0
"""How long one is waited for whose run an engine that has just begun may not have taken over yet."""

AT_ONCE = 16
"""Requests of a pod that are read and answered at the same time; more wait."""

_LOOK_SECONDS = 0.5

Pod = Mapping[str, Any]
Gate = Callable[["RunLog", Call], Coroutine[Any, Any, None]]


class StaleAttempt(FairleadError):
    """The pod is not that of an attempt that is under way, or speaks from elsewhere."""

    reason = "StaleAttempt"


class RunNotActive(StaleAttempt):
    """The run has ended while the request waited."""

    reason = "RunNotActive"


class CutOff(StaleAttempt):
    """The attempt ended while the request was under way: what came of it is on record as what came of its call."""


class TooManyCalls(FairleadError):
    """The attempt has used up its calls, and that is on record."""

    reason = "TooManyCalls"


class NotNow(FairleadError):
    """The run is not taken over yet, or this engine is about to end: later, this one or the next takes the request."""

    reason = "Unavailable"


class Mismatch(FairleadError):
    """Another request is on record under this number."""

    reason = "Nondeterminism"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a container asks for; `offered` is False of what its step does not name."""

    kind: CallKind
    target: str
    request: Mapping[str, Any]
    function: str = ""
    offered: bool = True


@dataclass(slots=True)
class CallingPod:
    """One of them: the run, the step's own call, and its pod, by UID and as last seen; `look` reads it again.

    A request takes one of `places` before its body is read.
    """

    log: RunLog
    own: Call
    pod: Pod
    look: Callable[[], Awaitable[Pod]]
    uid: str
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _keys: dict[int, str] = field(default_factory=dict)

    @property
    def request(self) -> Mapping[str, Any]:
        """Return what the step says of the container."""
        return self.own.request

    async def fence(self, account: str, address: str) -> None:
        """Return if whoever speaks has this account's token and is where the pod is.

        Raises:
            StaleAttempt: it has not, is elsewhere, or is about to end.
            KubeError: nobody can tell.
        """
        if account != f"system:serviceaccount:{self.log.namespace}:{self.log.account}":
            raise StaleAttempt("the pod has another account")
        if not _is_at(self.pod, address):
            with contextlib.suppress(NotFound):
                self.pod = await self.look()
        if not _is_at(self.pod, address):
            raise StaleAttempt("the pod is elsewhere, or ends")

    async def ask(self, gate: Gate, number: int, asked: Asked) -> CallState:
        """Take what a container asks for to the gate, once; return the settled call.

        Args:
            gate: takes a call through all stages.
            number: which request of the container it is, from 1.
            asked: the request.

        Raises:
            StaleAttempt: the attempt is over; RunNotActive if the run is, CutOff if it came as far as a call.
            TooManyCalls: see there.
            Mismatch: see there.
            NotNow: see there.
            StoreError: the intent could not be recorded; nothing was dispatched.
        """
        step, index = self._step(), CallIndex(number)
        most = int(self.request.get("maxCalls", MOST_CALLS))
        if sum(not call.is_notice for call in step.calls.values()) > most + 1 and str(index) not in step.calls:
            raise TooManyCalls(f"{most} calls were made")
        call = Call(
            id=CallId(self.own.id.path, self.own.id.attempt, index),
            kind=asked.kind,
            target=asked.target,
            function=asked.function,
            request=asked.request,
            offered=asked.offered,
            deadline_ms=self.own.deadline_ms,
            label=step.context,
        )
        task = self._tasks.get(number)
        if task is None or _came_to_nothing(task):
            call = replace(call, nth=self._nth(step, number, call), pod=FromPod(most, self.uid))
            task = self._tasks[number] = asyncio.create_task(gate(self.log, call))
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        known = self._recorded(index)
        if known is None or not known.settled:
            if self.log.draining:
                raise NotNow("the engine ends")
            if self.log.state.terminal is not None and not self._was_begun(index):
                raise RunNotActive("the run has ended")
            raise CutOff("it was cut off")
        if known.digest and known.digest != call.digest:
            raise Mismatch(f"another request is on record as number {number}")
        return known

    async def finish(self) -> None:
        """Wait until everything is answered that the container has asked for; then nothing of it is open any more.

        While the engine ends, only what is on record is waited for.
        """
        while pending := [task for task in self._tasks.values() if not task.done()]:
            await asyncio.wait(pending, timeout=_LOOK_SECONDS)
            if self.log.draining:
                self._cancel(lambda recorded: recorded is None)
        step = self.log.state.steps.get(self.own.id.path)
        if self.log.draining or self.log.state.terminal is not None or step is None:
            return
        opened = [call for call in step.calls.values() if call.index != str(self.own.id.index) and not call.settled]
        if step.attempt == self.own.id.attempt and opened:
            self.log.append(*(abandoned(step.path, step.attempt, call) for call in opened))

    def cut_off(self) -> set[asyncio.Task[None]]:
        """Cancel what only reads or was not sent yet; return the rest, which keeps its time to tell how it went."""
        self._cancel(lambda recorded: recorded is None or recorded.effect == "Read")
        return {task for task in self._tasks.values() if not task.done()}

    def _cancel(self, which: Callable[[CallState | None], bool]) -> None:
        step = self.log.state.steps.get(self.own.id.path)
        for number, task in self._tasks.items():
            if not task.done() and which(step.calls.get(str(CallIndex(number))) if step is not None else None):
                task.cancel()

    def _step(self) -> StepState:
        step = self.log.state.steps.get(self.own.id.path)
        if step is None or step.attempt != self.own.id.attempt or step.phase != "Running":
            raise StaleAttempt("the attempt is over")
        return step

    def _recorded(self, index: CallIndex) -> CallState | None:
        """Return what is on record of a request that was taken to the gate; None where its attempt is over by now."""
        with contextlib.suppress(StaleAttempt):
            return self._step().calls.get(str(index))
        return None

    def _was_begun(self, index: CallIndex) -> bool:
        """Tell whether a request came as far as a record, in an attempt that the end of its run may have ended too."""
        step = self.log.state.steps.get(self.own.id.path)
        return step is not None and step.attempt == self.own.id.attempt and str(index) in step.calls

    def _nth(self, step: StepState, number: int, call: Call) -> int:
        """Return the first ordinal among equal calls whose key no other one has that is open or has succeeded.

        One that was denied or failed leaves its key to the next: another attempt may need no more than one of them.
        """
        taken = {one.key for one in step.calls.values() if not one.settled or one.error is None}
        taken |= {key for at, key in self._keys.items() if at != number and str(CallIndex(at)) not in step.calls}
        nth = 0
        while (key := replace(call, nth=nth).idempotency_key(self.log.uid)) in taken:
            nth += 1
        self._keys[number] = key
        return nth


class CallingPods:
    """All of them, by the UIDs of their pods."""

    def __init__(
        self, open_runs: Callable[[], Iterable[RunLog | None]] = tuple, refusals: Refusals | None = None
    ) -> None:
        """Take the journals of all open runs, None of one that is not in memory; and who remembers whose a pod was."""
        self.refusals = refusals or Refusals()
        self._open_runs = open_runs
        self._pods: dict[str, CallingPod] = {}
        self._arrived = asyncio.Condition()
        self._left: set[asyncio.Task[None]] = set()

    async def find(self, uid: str) -> CallingPod:
        """Return the container whose pod has this UID.

        Raises:
            StaleAttempt: there is none.
            NotNow: its run is not taken over yet, or will be by the next engine.
        """
        known, ends = self._pods.get(uid), time.monotonic() + TAKEOVER_SECONDS
        if known is not None and not known.log.draining:
            return known
        self._may_be_taken_over(uid)
        while (found := await self._arrives(uid)) is None:
            if not self._may_be_taken_over(uid):
                raise StaleAttempt("no step's container that is under way has this pod")
            if time.monotonic() > ends:
                raise NotNow("its run is not taken over yet")
        return found

    async def _arrives(self, uid: str) -> CallingPod | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVAL_SECONDS), self._arrived:
                await self._arrived.wait_for(lambda: uid in self._pods)
        return self._pods.get(uid)

    def _may_be_taken_over(self, uid: str) -> bool:
        """Tell whether a run that is not taken over yet may have the pod.

        Raises:
            NotNow: the run has it, and this engine takes nothing more.
        """
        may = False
        for log in self._open_runs():
            if log is None or uid in _pods_of(log.state):
                if log is not None and log.draining:
                    raise NotNow("the engine ends")
                may = True
        return may

    @contextlib.asynccontextmanager
    async def under_way(
        self, log: RunLog, own: Call, pod: Pod, look: Callable[[], Awaitable[Pod]]
    ) -> AsyncIterator[CallingPod]:
        """Let a container call for as long as the context lasts; at its end everything is answered."""
        uid = pod["metadata"]["uid"]
        calling = CallingPod(log, own, pod, look, uid)
        self.refusals.remember(PodRow(uid, log.uid, own.id.path, own.id.attempt))
        async with self._arrived:
            self._pods[uid] = calling
            self._arrived.notify_all()
        try:
            yield calling
            del self._pods[uid]
            await calling.finish()
        finally:
            self._pods.pop(uid, None)
            for task in calling.cut_off():
                self._left.add(task)
                task.add_done_callback(self._left.discard)


def _came_to_nothing(task: asyncio.Task[None]) -> bool:
    """Tell whether a call ended without a record, so that the request may be taken again."""
    return task.done() and (task.cancelled() or task.exception() is not None)


def _pods_of(state: RunState) -> set[str]:
    """Return the pods of the container calls that have no outcome."""
    return {call.pod for _, call in open_calls(state) if call.pod}


def _is_at(pod: Pod, address: str) -> bool:
    """Tell whether a pod has this address, and goes on."""
    found = [one.get("ip") for one in pod.get("status", {}).get("podIPs") or ()]
    return address in found and not pod["metadata"].get("deletionTimestamp")
