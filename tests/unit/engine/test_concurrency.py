"""How many runs are at work at the same time: as many as their Workflow says, in turn, whatever restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeGate, tool_step, workflow
from tests.unit.engine.runworld import World, hanging, killed, open_engine, run_object, uid_of

from fairlead.engine.acceptance import KEY_BYTES
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.log import RunLog
from fairlead.flow.calls import Call
from fairlead.flow.journal import EntryKind

PER_CUSTOMER = {"maxRuns": 1, "key": "$( input.customer )"}


class Doors(FakeGate):
    """Every call waits until its run is let through.

    Attributes:
        entered: the runs whose call has begun, in order.
    """

    def __init__(self, answer: Callable[[Call], Awaitable[dict[str, Any]]] | None = None) -> None:
        super().__init__(*([answer] if answer else []))
        self.entered: list[str] = []
        self._doors: dict[str, asyncio.Event] = {}

    def let(self, *names: str) -> None:
        for name in names:
            self._doors.setdefault(name, asyncio.Event()).set()

    async def call(self, log: RunLog, call: Call) -> None:
        self.entered.append(log.name)
        await self._doors.setdefault(log.name, asyncio.Event()).wait()
        await super().call(log, call)


def bound(world: World, *steps: dict[str, Any], **concurrency: Any) -> Doors:
    """Bound the Workflow `w`; the gate holds every call."""
    world.resources.workflows["w"] = workflow(*(steps or (tool_step("a"),)), concurrency=concurrency)
    world.gate = Doors()
    return world.gate  # type: ignore[no-any-return]


async def queued(world: World, engine: WorkflowEngine, number: int) -> None:
    await world.until(lambda: engine.runs.roster.status("w")["queued"] == number)


async def test_one_run_more_than_allowed_waits_for_its_turn_and_says_so(world: World) -> None:
    gate = bound(world, maxRuns=2)
    async with world.engine() as engine:
        await world.until(lambda: engine.authorizations.of("w") is not None)
        ends = [engine.submit(run_object(number)) for number in range(3)]
        await world.until(lambda: len(gate.entered) == 2 and world.succeeded("run-2") is not None)
        (waiting,) = [c for c in world.sink.of("run-2")[-1]["conditions"] if c["type"] == "Succeeded"]
        assert (waiting["status"], waiting["reason"]) == ("Unknown", "Queued")
        assert waiting["message"] == (
            "waits until one of the others has ended or waits itself: "
            "as many runs are at work as concurrency.maxRuns allows (2)"
        )
        gate.let("run-0", "run-2")
        await asyncio.wait_for(asyncio.gather(ends[0], ends[2]), 20)
        gate.let("run-1")
        await asyncio.wait_for(ends[1], 20)
    assert gate.entered == ["run-0", "run-1", "run-2"]


async def test_runs_of_different_keys_do_not_wait_for_each_other(world: World) -> None:
    gate = bound(world, **PER_CUSTOMER)
    async with world.engine() as engine:
        for number, customer in enumerate(["ada", "ada", "ben"]):
            engine.submit(run_object(number, input={"customer": customer}))
        await world.until(lambda: gate.entered == ["run-0", "run-2"])
        await queued(world, engine, 1)
        gate.let("run-0", "run-1", "run-2")
        await world.until(lambda: engine.runs.roster.all() == [])
        (accepted, *_) = await engine.store.load(uid_of(run_object(1)))
    assert accepted.data["concurrencyKey"] == "ada"


async def test_a_workflow_at_its_bound_delays_no_other(world: World) -> None:
    gate = bound(world, maxRuns=1)
    world.resources.workflows["v"] = workflow(tool_step("a"), name="v")
    async with world.engine(places=2) as engine:
        for number, name in enumerate(["w", "w", "v", "v"]):
            engine.submit(run_object(number, workflow=name))
        await world.until(lambda: gate.entered == ["run-0", "run-2"])
        gate.let("run-2")
        await world.until(lambda: gate.entered == ["run-0", "run-2", "run-3"])
        gate.let("run-0", "run-1", "run-3")
        await world.until(lambda: engine.runs.roster.all() == [])
    assert gate.entered[-1] == "run-1"


async def promptly(world: World, engine: WorkflowEngine, number: int, name: str = "quick") -> None:
    """Run a Workflow that calls nothing, and see it end."""
    world.resources.workflows[name] = workflow({"name": "x", "transform": {"value": 1}}, name=name)
    state = await asyncio.wait_for(engine.submit(run_object(number, workflow=name)), 20)
    assert state.terminal is not None and state.terminal.reason == "Completed"


async def test_however_many_runs_hang_in_their_calls_those_of_other_workflows_end(world: World) -> None:
    gate = world.gate = Doors()
    names = ["w", "v", "u"]
    world.resources.workflows |= {name: workflow(tool_step("a"), name=name) for name in names}
    async with world.engine(places=64) as engine:
        for number in range(64 * len(names)):
            engine.submit(run_object(number, workflow=names[number // 64]))
        await world.until(lambda: all(engine.runs.roster.status(name)["queued"] for name in names))
        await promptly(world, engine, 1000)
        assert [engine.runs.roster.active(name) for name in names] == [32, 16, 8]
        gate.let(*(f"run-{number}" for number in range(64 * len(names))))
        await world.until(lambda: engine.runs.roster.all() == [])


async def test_runs_that_come_back_to_hang_leave_others_their_places_too(world: World) -> None:
    first, hang = True, asyncio.Event()

    async def answer(call: Call) -> dict[str, Any]:
        if not first:
            await hang.wait()
            return {"result": {}}
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    world.resources.workflows["w"] = workflow(tool_step("a", retry={"limit": 1, "backoffSeconds": 600}))
    world.gate = FakeGate(answer)
    async with world.engine(places=64) as engine:
        for number in range(80):
            engine.submit(run_object(number))
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 80)
        first = False
        world.clock.now += 1_200_000
        engine.runs.wake()
        await world.until(lambda: engine.runs.roster.active("w") == 80)
        await promptly(world, engine, 1000)
        hang.set()
        await world.until(lambda: engine.runs.roster.all() == [])


async def test_a_run_that_waits_holds_nobody_up(world: World) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    bound(world, tool_step("a", retry={"limit": 1, "backoffSeconds": 600}), maxRuns=1)
    world.gate = FakeGate(unavailable)
    async with world.engine() as engine:
        for number in range(3):
            engine.submit(run_object(number))
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 3)


async def test_where_the_workflow_says_reject_one_run_more_ends(world: World) -> None:
    gate = bound(world, whenBusy="Reject", **PER_CUSTOMER)
    async with world.engine() as engine:
        first = engine.submit(run_object(0, input={"customer": "ada"}))
        await world.until(lambda: gate.entered == ["run-0"])
        state = await asyncio.wait_for(engine.submit(run_object(1, input={"customer": "ada"})), 20)
        assert state.terminal is not None and state.terminal.kind is EntryKind.RUN_REJECTED
        assert state.terminal.reason == "Rejected"
        assert state.terminal.message == (
            "as many runs with the same key are at work as concurrency.maxRuns allows (1)"
        )
        await world.until(lambda: world.conditions("run-1").get("Accepted") == ("False", "Rejected"))
        gate.let("run-0", "run-2")
        await asyncio.wait_for(first, 20)
        await asyncio.wait_for(engine.submit(run_object(2, input={"customer": "ada"})), 20)
    assert gate.entered == ["run-0", "run-2"]


async def test_a_run_in_line_for_a_place_counts_where_the_workflow_says_reject(world: World) -> None:
    gate = bound(world, maxRuns=1, whenBusy="Reject")
    world.resources.workflows["v"] = workflow(tool_step("a"), name="v")
    async with world.engine(places=1) as engine:
        engine.submit(run_object(0, workflow="v"))
        await world.until(lambda: gate.entered == ["run-0"])
        engine.submit(run_object(1))
        state = await asyncio.wait_for(engine.submit(run_object(2)), 20)
        assert state.terminal is not None and state.terminal.reason == "Rejected"
        gate.let("run-0", "run-1")
        await world.until(lambda: engine.runs.roster.all() == [])


@pytest.mark.parametrize(
    ("given", "words"),
    [({}, "spec.concurrency.key: there is no 'customer'"), ({"customer": "c" * (KEY_BYTES + 1)}, "more than 1024")],
    ids=["no value", "too long"],
)
async def test_an_input_without_a_usable_key_is_refused(world: World, given: dict[str, str], words: str) -> None:
    bound(world, **PER_CUSTOMER)
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(input=given)), 20)
    assert state.terminal is not None and state.terminal.reason == "InvalidInput"
    assert words in state.terminal.message


async def test_more_runs_start_as_soon_as_the_workflow_allows_more(world: World) -> None:
    gate = bound(world, maxRuns=1)
    async with world.engine() as engine:
        for number in range(3):
            engine.submit(run_object(number))
        await queued(world, engine, 2)
        world.resources.workflows["w"] = workflow(tool_step("a"), concurrency={"maxRuns": 3})
        engine.workflow_changed(["w"])
        await world.until(lambda: gate.entered == ["run-0", "run-1", "run-2"])
        gate.let("run-0", "run-1", "run-2")
        await world.until(lambda: engine.runs.roster.all() == [])


async def test_the_line_survives_a_crash_in_the_order_of_acceptance(world: World) -> None:
    bound(world, **PER_CUSTOMER)
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    order = [7, 3, 9, 1, 5]  # by UID it would be another one
    raws = [run_object(number, input={"customer": "ada"}) for number in order]
    engine = await open_engine(world)
    async with killed(engine, begun, *raws):
        pass
    gate = world.gate = Doors()
    async with world.engine(objects=sorted(raws, key=uid_of)) as engine:
        await world.until(lambda: gate.entered == ["run-7"])
        await queued(world, engine, 4)
        assert engine.runs.roster.standing("w", "ada", "Queued") == 4  # type: ignore[arg-type]  # a Standing is its name
        gate.let(*(f"run-{number}" for number in order))
        await world.until(lambda: engine.runs.roster.all() == [])
    assert gate.entered == [f"run-{number}" for number in order]


@pytest.mark.requirement("G4")
async def test_a_run_in_line_ends_by_its_deadline_even_after_a_crash(world: World) -> None:
    bound(world, maxRuns=1)
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raws = [run_object(0), run_object(1, timeoutSeconds=60)]
    engine = await open_engine(world)
    async with killed(engine, begun, *raws):
        pass
    gate = world.gate = Doors()
    async with world.engine(objects=raws) as engine:
        await world.until(lambda: gate.entered == ["run-0"])
        world.clock.now += 60_000
        engine.runs.wake()
        await world.until(lambda: world.succeeded("run-1") == ("False", "Timeout"))
        gate.let("run-0")
        await world.until(lambda: engine.runs.roster.all() == [])
    assert gate.entered == ["run-0"]
