"""Runs from acceptance to their end, on a real store with a scripted gate: what the engine guarantees."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.engine.fakes import (
    READY,
    FakeGate,
    FakeSink,
    tool_step,
    workflow,
)
from tests.unit.engine.runworld import World, hanging, killed, open_engine, run_object, uid_of

from fairlead.api.workflow import Workflow
from fairlead.engine.acceptance import GRACE_MS
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.log import RunLog
from fairlead.flow.calls import Call
from fairlead.flow.journal import EntryKind
from fairlead.policy.decision import Authorization


async def test_a_run_is_accepted_executed_and_reported(world: World) -> None:
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(input={"n": 1})), 20)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        kinds = [entry.kind for entry in await engine.store.load(uid_of(run_object()))]
    assert state.accepted is not None
    assert state.accepted.account == "clerk" and state.accepted.input == {"n": 1}
    assert kinds[0] is EntryKind.RUN_ACCEPTED and kinds[-1] is EntryKind.RUN_SUCCEEDED
    assert world.gate.dispatched == ["a:read", "b:send"]
    assert len(world.sink.of("run-0")) <= 4
    assert world.sink.of("run-0")[-1]["progress"] == "2/2"


async def test_the_same_object_seen_again_is_not_executed_again(world: World) -> None:
    raw = run_object()
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(raw), 20)
        engine.runs.observe(raw)
        await asyncio.wait_for(engine.submit(run_object(1)), 20)
    async with world.engine(objects=[raw]) as engine:
        await asyncio.wait_for(engine.submit(run_object(2)), 20)
    assert world.gate.dispatched == ["a:read", "b:send"] * 3


async def test_an_end_that_was_not_told_is_told_after_a_restart(world: World) -> None:
    raw = run_object()
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(raw), 20)
    world.sink = FakeSink()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


NOT_READY = READY | {"status": "False", "reason": "UnknownReference", "message": "there is no Tool desk"}
INVALID = READY | {"status": "False", "reason": "InvalidSpec", "message": "spec.steps[0].when: no such step"}
REFUSED: dict[str, tuple[Workflow | None, dict[str, Any], int, str]] = {
    "no such Workflow": (None, {}, GRACE_MS, "WorkflowNotFound"),
    "the Workflow is wrong": (workflow(tool_step("a"), status={"conditions": [INVALID]}), {}, 0, "InvalidWorkflow"),
    "what it names does not come": (
        workflow(tool_step("a"), status={"conditions": [NOT_READY]}),
        {},
        GRACE_MS,
        "InvalidWorkflow",
    ),
    "the input does not fit": (
        workflow(tool_step("a"), input={"schema": {"type": "object", "required": ["n"]}}),
        {},
        0,
        "InvalidInput",
    ),
    "the input is too large": (workflow(tool_step("a")), {"input": {"n": "x" * 300_000}}, 0, "InvalidInput"),
    "the input cannot be kept": (workflow(tool_step("a")), {"input": {"n": 2**65}}, 0, "InvalidInput"),
    "the input is nested too deep": (
        workflow(tool_step("a")),
        {"input": {"n": json.loads("[" * 65 + "]" * 65)}},
        0,
        "InvalidInput",
    ),
    "cancelled before it began": (workflow(tool_step("a")), {"desiredState": "Cancelled"}, 0, "Cancelled"),
}


@pytest.mark.parametrize(("flow", "spec", "wait_ms", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_begin_ends_with_its_reason(
    world: World, flow: Workflow | None, spec: dict[str, Any], wait_ms: int, reason: str
) -> None:
    world.resources.workflows = {"w": flow} if flow is not None else {}
    async with world.engine() as engine:
        ended = engine.submit(run_object(**spec))
        if wait_ms:
            await world.until(lambda: world.succeeded() == ("Unknown", "Queued"))
            assert not ended.done()
            world.clock.now += wait_ms
            engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
        await world.until(lambda: world.succeeded() == ("False", reason))
    assert state.terminal is not None and state.terminal.reason == reason
    assert world.gate.dispatched == []


@pytest.mark.parametrize(
    "status",
    [{}, {"conditions": [READY | {"observedGeneration": 0}]}, {"conditions": [READY | {"status": "Unknown"}]}],
    ids=["not looked at", "looked at before the last change", "unknown"],
)
async def test_a_run_waits_until_its_workflow_is_ready(world: World, status: dict[str, Any]) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), status=status)
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "WorkflowNotReady"))
        world.resources.workflows["w"] = workflow(tool_step("a"))
        engine.workflow_changed(["w"])
        await asyncio.wait_for(ended, 20)
    assert world.gate.dispatched == ["a:read"]


async def test_a_workflow_without_its_grants_ends_denied_after_a_while(world: World) -> None:
    world.authorizer.verdict = Authorization("Denied")
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "NotAuthorized"))
        world.clock.now += GRACE_MS
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Denied"
    assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/desk.send" in state.terminal.message
    assert world.gate.dispatched == []


async def test_an_authorizer_without_an_answer_neither_denies_nor_allows(world: World) -> None:
    world.authorizer.verdict = Authorization("Unavailable", message="no answer")
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "NotAuthorized"))
        world.clock.now += 10 * GRACE_MS
        engine.runs.wake()
        world.authorizer.verdict = Authorization("Allowed")
        engine.workflow_changed(["w"])
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.kind is EntryKind.RUN_SUCCEEDED


@pytest.mark.requirement("G6")
async def test_an_accepted_run_keeps_the_revision_that_it_began_with(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await WorkflowEngine.open(
        world.path,
        resources=world.resources,
        authorizer=world.authorizer,
        sink=world.sink,
        gate=lambda clock, metrics: world.gate,
        clock=world.clock,
        desk=world.desk,
    )
    async with killed(engine, begun, raw):
        pass
    world.resources.workflows["w"] = workflow(tool_step("other"))
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


@pytest.mark.requirement("G3")
async def test_an_effect_that_was_under_way_is_unknown_after_a_crash(world: World) -> None:
    world.resources.workflows["w"] = workflow(tool_step("b", "send", retry={"limit": 3}))
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await open_engine(world)
    async with killed(engine, begun, raw):
        pass
    world.gate = FakeGate()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("False", "OutcomeUnknown"))
    assert world.gate.dispatched == []


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("function", ["read", "put"])
async def test_a_read_or_keyed_call_is_made_again_after_a_crash(world: World, function: str) -> None:
    world.resources.workflows["w"] = workflow(tool_step("b", function))
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await open_engine(world)
    async with killed(engine, begun, raw):
        pass
    world.gate = FakeGate()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == [f"b:{function}"]


@pytest.mark.requirement("G7")
async def test_a_parked_run_survives_a_restart_and_wakes_in_time(world: World) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    world.resources.workflows["w"] = workflow(tool_step("a", retry={"limit": 1, "backoffSeconds": 60}))
    world.gate = FakeGate(unavailable)
    raw = run_object()
    async with world.engine() as engine:
        engine.submit(raw)
        await world.until(lambda: world.succeeded() == ("Unknown", "BackingOff") or len(world.gate.dispatched) == 1)
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        (parked,) = engine.runs.roster.all()
        assert parked.task is None and parked.log is None
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        assert engine.runs.roster.status("w")["waiting"] == 1
        assert world.gate.dispatched == []
        world.clock.now += 120_000
        engine.runs.wake()
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read"]


@pytest.mark.requirement("F33")
@pytest.mark.parametrize("how", ["asked", "deleted"])
async def test_a_run_is_cancelled_when_asked_or_deleted(world: World, how: str) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    async with world.engine() as engine:
        ended = engine.submit(raw)
        await begun.wait()
        if how == "asked":
            engine.runs.observe(run_object(desiredState="Cancelled"))
        else:
            engine.runs.gone(uid_of(raw))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Cancelled"


async def test_a_parked_run_is_cancelled_at_once(world: World) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    world.resources.workflows["w"] = workflow(tool_step("a", retry={"limit": 1, "backoffSeconds": 600}))
    world.gate = FakeGate(unavailable)
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        engine.runs.observe(run_object(desiredState="Cancelled"))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Cancelled"


async def test_places_are_given_in_turn_to_workflows(world: World) -> None:
    gates: dict[str, asyncio.Event] = {}
    order: list[str] = []

    async def answer(call: Call) -> dict[str, Any]:
        return {"result": {}}

    class Ordered(FakeGate):
        async def call(self, log: RunLog, call: Call) -> None:
            order.append(log.name)
            if log.name == "run-0":
                await gates.setdefault("run-0", asyncio.Event()).wait()
            await super().call(log, call)

    world.resources.workflows = {
        "w": workflow(tool_step("a")),
        "v": workflow(tool_step("a"), name="v"),
    }
    gates["run-0"] = asyncio.Event()
    world.gate = Ordered(answer)
    async with world.engine(places=1) as engine:
        first = engine.submit(run_object(0))
        await world.until(lambda: order == ["run-0"])
        later = [engine.submit(run_object(number)) for number in (1, 2, 3)]
        later.append(engine.submit(run_object(4, workflow="v")))
        await world.until(
            lambda: engine.runs.roster.status("v")["queued"] == 1 and world.succeeded("run-4") is not None
        )
        assert world.succeeded("run-3") == ("Unknown", "Queued")
        gates["run-0"].set()
        await asyncio.wait_for(asyncio.gather(first, *later), 20)
    assert order == ["run-0", "run-1", "run-4", "run-2", "run-3"]
