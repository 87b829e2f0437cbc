"""The driver: drives a run to its end through the gate, parks what waits long, and never spins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.fakes import T0, FakeClock, FakeGate, FakeResources, tool_step, workflow

from fairlead.engine.driver import RECORDS_IN_A_ROW, DriverStuck, drive
from fairlead.engine.log import RunLog
from fairlead.engine.store import Store
from fairlead.errors import StoreError
from fairlead.flow.calls import Call
from fairlead.flow.journal import SEMANTICS, Draft, EntryKind, RunUid
from fairlead.flow.next import Next, what_next
from fairlead.flow.plan import compile_plan
from fairlead.flow.state import new_state

UID = RunUid("0f0e0d0c-0b0a-4908-8706-050403020100")
REVISION = "sha256:" + "a" * 64
UNAVAILABLE = {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}


class Bench:
    """One accepted run of the given steps on a real store."""

    def __init__(self, store: Store, clock: FakeClock, *steps: dict[str, Any], semantics: int = SEMANTICS) -> None:
        flow = workflow(*steps)
        self.flow = steps
        self.clock = clock
        self.resources = FakeResources(flow)
        plan = compile_plan("w", REVISION, flow.spec)
        store.begin(UID, namespace="team", name="r", workflow="w")
        self.log = RunLog(store, uid=UID, namespace="team", name="r", account="clerk", plan=plan, state=new_state())
        frozen = {"workflow": "w", "namespace": "team", "name": "r", "revision": REVISION, "generation": 1}
        frozen |= {"semantics": semantics, "input": {}, "account": "clerk", "createdAt": T0, "deadline": T0 + 600_000}
        self.log.append(Draft(EntryKind.RUN_ACCEPTED, data=frozen))

    async def drive(self, gate: Any) -> int | None:
        return await drive(self.log, gate=gate, resources=self.resources, clock=self.clock)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    opened = await Store.open(tmp_path / "journal.db", clock=clock)
    yield opened
    await opened.close()


async def test_a_run_is_driven_to_its_end_and_the_end_is_durable(store: Store, clock: FakeClock) -> None:
    bench, gate = Bench(store, clock, tool_step("a"), tool_step("b", "send")), FakeGate()
    assert await bench.drive(gate) is None
    assert gate.dispatched == ["a:read", "b:send"]
    assert (await store.load(UID))[-1].kind is EntryKind.RUN_SUCCEEDED


async def test_the_core_is_asked_only_when_something_may_be_next(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def counted(*arguments: Any) -> Next:
        nonlocal asked
        asked += 1
        return what_next(*arguments)

    monkeypatch.setattr("fairlead.engine.driver.what_next", counted)
    bench = Bench(store, clock, *(tool_step(f"s{number}") for number in range(20)))
    assert await bench.drive(FakeGate()) is None
    assert asked == 20 * len(("its start", "its call", "its end")) + len(("the run's end",))


async def test_a_chain_without_calls_leaves_room_for_other_runs(store: Store, clock: FakeClock) -> None:
    bench = Bench(store, clock, *(tool_step(f"s{number}", when="false") for number in range(100)))
    turns = 0

    async def others() -> None:
        nonlocal turns
        while bench.log.state.terminal is None:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await bench.drive(FakeGate()) is None
    await other
    assert turns >= 100 // RECORDS_IN_A_ROW


async def test_independent_steps_are_in_flight_together(store: Store, clock: FakeClock) -> None:
    together = asyncio.Barrier(2)

    async def meet(call: Call) -> dict[str, Any]:
        await together.wait()
        return {"result": {}}

    flow = [tool_step("a"), tool_step("b", needs=[])]
    bench = Bench(store, clock, *flow)
    bench.log.plan = compile_plan("w", REVISION, workflow(*flow, order="Graph").spec)
    await asyncio.wait_for(bench.drive(FakeGate(meet)), 10)
    assert bench.log.state.terminal is not None and bench.log.state.terminal.kind is EntryKind.RUN_SUCCEEDED


@pytest.mark.requirement("G7")
async def test_a_long_wait_parks_the_run(store: Store, clock: FakeClock) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return UNAVAILABLE

    bench = Bench(store, clock, tool_step("a", retry={"limit": 1, "backoffSeconds": 60}))
    gate = FakeGate(unavailable)
    wake_at_ms = await bench.drive(gate)
    assert wake_at_ms is not None and T0 + 5_000 < wake_at_ms <= T0 + 90_000
    clock.now = wake_at_ms
    assert await bench.drive(gate) is None
    assert gate.dispatched == ["a:read", "a:read"]
    assert bench.log.state.terminal is not None and bench.log.state.terminal.reason == "StepFailed"


async def test_cancelling_reaches_reads_at_once_and_lets_effects_tell_how_they_went(
    store: Store, clock: FakeClock
) -> None:
    sent, release = asyncio.Event(), asyncio.Event()
    cancelled: list[str] = []

    async def answer(call: Call) -> dict[str, Any]:
        if call.function == "send":
            sent.set()
            await release.wait()
            return {"result": {"text": "sent"}}
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(call.function)
            release.set()
            raise
        raise AssertionError

    flow = [tool_step("a", "send"), tool_step("b")]
    bench = Bench(store, clock, *flow)
    bench.log.plan = compile_plan("w", REVISION, workflow(*flow, order="Graph").spec)
    gate = FakeGate(answer)
    driving = asyncio.create_task(bench.drive(gate))
    await sent.wait()
    while len(gate.dispatched) < 2:
        await asyncio.sleep(0)
    bench.log.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "asked to"}))
    assert await asyncio.wait_for(driving, 10) is None
    assert cancelled == ["read"]
    outcomes = {entry.path: entry.data["status"] for entry in await store.load(UID) if "status" in entry.data}
    assert outcomes == {"a": "Succeeded", "b": "Failed"}
    assert bench.log.state.terminal is not None and bench.log.state.terminal.reason == "Cancelled"


@pytest.mark.requirement("F28")
@pytest.mark.requirement("G4")
async def test_a_run_ends_at_its_deadline_though_a_call_hangs(store: Store, clock: FakeClock) -> None:
    hanging = asyncio.Event()

    async def hang(call: Call) -> dict[str, Any]:
        hanging.set()
        await asyncio.Event().wait()
        return {}

    bench = Bench(store, clock, tool_step("a", "send"))
    driving = asyncio.create_task(bench.drive(FakeGate(hang)))
    await hanging.wait()
    clock.now = T0 + 600_000
    bench.log.wake()
    while bench.log.state.closing is None:
        await asyncio.sleep(0)
    clock.now += 20_000
    bench.log.wake()
    assert await asyncio.wait_for(driving, 10) is None
    kinds = [(entry.kind, entry.data.get("reason")) for entry in await store.load(UID)]
    assert kinds[-1] == (EntryKind.RUN_FAILED, "Timeout")
    unknown = [entry.data["error"]["class"] for entry in await store.load(UID) if "error" in entry.data]
    assert unknown[0] == "OutcomeUnknown"


async def test_a_call_that_comes_back_without_a_record_does_not_spin(store: Store, clock: FakeClock) -> None:
    class Forgetful:
        async def call(self, log: RunLog, call: Call) -> None:
            return None

    with pytest.raises(ExceptionGroup) as raised:
        await Bench(store, clock, tool_step("a")).drive(Forgetful())
    assert raised.group_contains(DriverStuck)


async def test_a_run_of_unknown_semantics_is_stuck_and_not_guessed_at(store: Store, clock: FakeClock) -> None:
    gate = FakeGate()
    with pytest.raises(ExceptionGroup) as raised:
        await Bench(store, clock, tool_step("a"), semantics=SEMANTICS + 1).drive(gate)
    assert raised.group_contains(DriverStuck)
    assert gate.dispatched == []


async def test_a_store_that_fails_ends_the_driver(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = FakeGate()
    bench = Bench(store, clock, tool_step("a", "send"))

    def full(batch: object) -> float:
        raise OSError("disk full")

    monkeypatch.setattr(store._database, "commit", full)
    with pytest.raises(ExceptionGroup) as raised:
        await bench.drive(gate)
    assert raised.group_contains(StoreError)
    assert gate.dispatched == []


async def test_a_sealed_log_takes_nothing_more(store: Store, clock: FakeClock) -> None:
    bench = Bench(store, clock, tool_step("a"))
    before = bench.log.state.seq
    bench.log.seal()
    bench.log.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))
    assert bench.log.state.seq == before


async def test_a_journal_that_takes_nothing_more_does_not_spin(store: Store, clock: FakeClock) -> None:
    bench = Bench(store, clock, tool_step("a"))
    bench.log.seal()
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(bench.drive(FakeGate()), 10)
    assert raised.group_contains(DriverStuck)


class Beside(FakeGate):
    """A read hangs; an effect beside it meets a bug, once it is told to."""

    def __init__(self) -> None:
        super().__init__(self._hang)
        self.hangs, self.breaks = asyncio.Event(), asyncio.Event()
        self.left: list[bool] = []

    async def call(self, log: RunLog, call: Call) -> None:
        if call.function == "send":
            await self.breaks.wait()
            raise ZeroDivisionError
        try:
            await super().call(log, call)
        finally:
            self.left.append(log.draining)

    async def _hang(self, call: Call) -> dict[str, Any]:
        self.hangs.set()
        await asyncio.Event().wait()
        return {}


@pytest.mark.parametrize("how", ["cancelled", "broken"])
async def test_what_a_driver_leaves_in_flight_stays_as_it_stands(store: Store, clock: FakeClock, how: str) -> None:
    bench, gate = Bench(store, clock, tool_step("a"), tool_step("b", "send", needs=[])), Beside()
    bench.log.plan = compile_plan("w", REVISION, workflow(*bench.flow, order="Graph").spec)
    driving = asyncio.create_task(bench.drive(gate))
    await gate.hangs.wait()
    if how == "cancelled":
        driving.cancel()
    else:
        gate.breaks.set()
    await asyncio.gather(driving, return_exceptions=True)
    assert gate.left == [True]  # so that the pod of a container is left, too
    kinds = [entry.kind for entry in await store.load(UID)]
    assert EntryKind.CALL_INTENT in kinds and EntryKind.CALL_OUTCOME not in kinds


async def test_what_is_in_flight_when_the_object_has_ended_is_left_to_nobody(store: Store, clock: FakeClock) -> None:
    bench, gate = Bench(store, clock, tool_step("a")), Beside()
    driving = asyncio.create_task(bench.drive(gate))
    await gate.hangs.wait()
    bench.log.seal()
    driving.cancel()
    await asyncio.gather(driving, return_exceptions=True)
    assert gate.left == [False]
