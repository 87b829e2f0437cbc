"""A run that goes on from an ended one (`retryFrom`): which is found, what is frozen, what a restart makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import READY, FakeGate, at_once, tool_step, workflow
from tests.unit.engine.runworld import World, hanging, killed, open_engine, run_object, uid_of

from fairlead.api.policy import Policy
from fairlead.engine.engine import WorkflowEngine
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.journal import RunUid
from fairlead.flow.labels import TOLD, TRUSTED, Label
from fairlead.flow.plan import Plan

STEPS = (tool_step("a"), tool_step("b", "send"), tool_step("c", "send"))


@pytest.fixture(autouse=True)
def declared(world: World) -> None:
    world.resources.workflows["w"] = workflow(*STEPS, output="$( [input.n, steps.c.output] )")
    world.resources.workflows["other"] = workflow(*STEPS, name="other")


def failing(*paths: str) -> FakeGate:
    async def answer(call: Call) -> dict[str, Any]:
        if call.id.path in paths:
            return {"error": {"class": "ToolError", "reason": "ToolError", "message": "no"}}
        return await at_once(call)

    return FakeGate(answer)


async def first(world: World, engine: WorkflowEngine, **spec: Any) -> None:
    """Let a run fail at its last step, whatever the gate said before."""
    world.gate.answer = failing("c").answer
    await asyncio.wait_for(engine.submit(run_object(input={"n": 1}, **spec)), 20)


def retry(**more: Any) -> dict[str, Any]:
    return {"run": "run-0", **more}


async def after_the_first(world: World, **spec: Any) -> tuple[Any, list[str]]:
    """Return how a run ended that came after a first one, and what it did."""
    world.gate = failing("c")
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(run_object(input={"n": 1})), 20)
    world.gate = FakeGate()
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(1, **spec)), 20)
    return state.terminal, world.gate.dispatched


async def test_it_has_the_input_and_the_finished_steps_of_the_run_that_it_names(world: World) -> None:
    end, done = await after_the_first(world, retryFrom=retry())
    assert (end.reason, end.output, done) == ("Completed", [1, {"text": "send"}], ["c:send"])
    rows = {row["path"]: row.get("message") for row in world.sink.of("run-1")[-1]["steps"]}
    assert rows == {"a": "done by run run-0", "b": "done by run run-0", "c": None}


async def test_it_has_what_a_container_of_the_run_that_it_names_left(world: World) -> None:
    image = "i@sha256:" + "0" * 64
    grant = {"grants": {"serviceAccounts": ["clerk"], "images": [image]}}
    ready = {"metadata": {"name": "images"}, "spec": grant, "status": {"conditions": [READY]}}
    world.resources.policies["images"] = Policy.model_validate(ready)
    work = {"name": "work", "container": {"image": image, "input": "$( input.n )"}}
    world.resources.workflows["w"] = workflow(work, tool_step("c", "send"), output="$( steps.work.output )")
    left: list[int] = []

    async def answer(call: Call) -> dict[str, Any]:
        if call.kind is CallKind.CONTAINER:
            left.append(7)
            return {"result": {"output": 7, "logs": ""}}
        return await (failing("c") if len(world.gate.dispatched) < 3 else FakeGate()).answer(call)

    world.gate.answer = answer
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(run_object(input={"n": 1})), 20)
        state = await asyncio.wait_for(engine.submit(run_object(1, retryFrom=retry())), 20)
    assert state.terminal is not None
    assert (state.terminal.reason, state.terminal.output, left) == ("Completed", 7, [7])
    assert world.sink.of("run-1")[-1]["steps"][0]["message"] == "done by run run-0"


async def test_it_may_have_an_input_of_its_own_and_a_step_to_begin_at(world: World) -> None:
    end, done = await after_the_first(world, retryFrom=retry(step="b"), input={"n": 2})
    assert (end.output[0], done) == (2, ["b:send", "c:send"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no such run": ({"retryFrom": {"run": "gone"}}, "spec.retryFrom.run: the engine knows no run gone"),
    "of another": ({"workflow": "other", "retryFrom": retry()}, "run-0 is a run of Workflow w, not of other"),
    "no such step": ({"retryFrom": retry(step="z")}, "spec.retryFrom.step: Workflow w has no step z; it has a, b, c"),
    "itself": ({"retryFrom": {"run": "run-1"}}, "the engine knows no run run-1"),
}


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_wrong_reference_ends_the_run_and_says_what_is_wrong(
    world: World, spec: dict[str, Any], words: str
) -> None:
    end, done = await after_the_first(world, **spec)
    assert (end.reason, done) == ("InvalidInput", [])
    assert words in end.message


async def test_a_run_that_goes_on_or_never_began_is_none_to_go_on_from(world: World) -> None:
    world.resources.workflows["w"] = workflow({"name": "nap", "wait": {"seconds": 60}})
    async with world.engine() as engine:
        engine.submit(run_object())
        await world.until(lambda: (world.succeeded() or ("", ""))[1] == "Sleeping")
        sleeping = await asyncio.wait_for(engine.submit(run_object(1, retryFrom=retry())), 20)
        world.resources.workflows["w"] = workflow(*STEPS, input={"schema": {"type": "object", "required": ["m"]}})
        await asyncio.wait_for(engine.submit(run_object(2)), 20)
        rejected = await asyncio.wait_for(engine.submit(run_object(3, retryFrom={"run": "run-2"})), 20)
    assert sleeping.terminal is not None and "run-0 has not ended" in sleeping.terminal.message
    assert rejected.terminal is not None and "run-2 was never accepted" in rejected.terminal.message


async def test_the_input_that_is_taken_over_must_fit_the_workflow_as_it_is_now(world: World) -> None:
    async with world.engine() as engine:
        await first(world, engine)
        world.resources.workflows["w"] = workflow(*STEPS, input={"schema": {"type": "object", "required": ["m"]}})
        state = await asyncio.wait_for(engine.submit(run_object(1, retryFrom=retry())), 20)
    assert state.terminal is not None and state.terminal.reason == "InvalidInput"


@pytest.mark.requirement("A37")
@pytest.mark.parametrize(("given", "label"), [({}, TOLD), ({"input": {"n": 2}}, TRUSTED)], ids=["taken over", "new"])
async def test_the_input_that_is_taken_over_keeps_its_label(world: World, given: dict[str, Any], label: Label) -> None:
    async with world.engine() as engine:
        await first(world, engine)
        world.resources.workflows["w"] = workflow(*STEPS, input={"trust": "Trusted"})
        state = await asyncio.wait_for(engine.submit(run_object(1, retryFrom=retry(), **given)), 20)
    assert state.accepted is not None and state.accepted.label == label


@pytest.mark.requirement("G1")
async def test_after_a_crash_it_still_goes_on_from_the_same_run(world: World) -> None:
    async with world.engine() as engine:
        await first(world, engine)
    begun, hang = hanging()
    world.resources.workflows["w"] = workflow(*STEPS, tool_step("d"))
    world.gate = FakeGate(hang)
    raw = run_object(1, retryFrom=retry())
    async with killed(await open_engine(world), begun, raw):
        pass
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: (world.succeeded("run-1") or ("", ""))[1] not in ("", "Executing", "Queued"))
        (accepted, *_) = await engine.store.load(uid_of(raw))
    assert accepted.data["retryFrom"] == {"run": "run-0", "uid": uid_of(run_object())}
    assert {name.partition(":")[0] for name in world.gate.dispatched}.isdisjoint({"a", "b"})


async def test_when_the_earlier_journal_is_gone_what_is_left_is_done(world: World) -> None:
    async with world.engine() as engine:
        await first(world, engine)
        world.gate.answer = at_once
        world.resources.workflows["w"] = workflow({"name": "nap", "wait": {"seconds": 60}}, *STEPS)
        raw = run_object(1, retryFrom=retry())
        ended = engine.submit(raw)
        await world.until(lambda: (world.succeeded("run-1") or ("", ""))[1] == "Sleeping")
        engine.store.forget(uid_of(run_object()))
        world.clock.now += 61_000
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Completed"
    assert world.gate.dispatched == ["a:read", "b:send", "c:send"] * 2


@pytest.mark.requirement("F12")
async def test_one_that_is_killed_while_it_is_accepted_is_accepted_after_the_restart(world: World) -> None:
    async with world.engine() as engine:
        await first(world, engine)
    world.gate = FakeGate()
    raw, engine = run_object(1, retryFrom=retry()), await open_engine(world)
    await engine.recover({})
    reads = asyncio.Event()

    async def killed_here(plan: Plan, earlier: Any) -> Plan:
        await engine.store.durable()  # as every reading does first
        reads.set()
        await asyncio.Event().wait()
        return plan

    engine.runs._runner._earlier.going_on = killed_here  # type: ignore[method-assign]
    parts = asyncio.create_task(engine._parts())
    engine.submit(raw)
    await asyncio.wait_for(reads.wait(), 20)
    parts.cancel()
    await asyncio.gather(parts, return_exceptions=True)
    await engine.store.close()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded("run-1") == ("True", "Completed"))
    assert world.gate.dispatched == ["c:send"]


@pytest.mark.requirement("F33")
async def test_one_that_is_deleted_while_it_is_accepted_holds_no_place(world: World) -> None:
    world.resources.workflows["w"] = workflow(*STEPS, concurrency={"maxRuns": 1})
    async with world.engine() as engine:
        await first(world, engine)
        world.gate.answer = at_once
        raw, earlier = run_object(1, retryFrom=retry()), engine.runs._runner._earlier
        going_on, gone = earlier.going_on, asyncio.Event()

        async def deleted_meanwhile(plan: Plan, retried: Any) -> Plan:
            engine.runs.gone(uid_of(raw))
            gone.set()
            return await going_on(plan, retried)

        earlier.going_on = deleted_meanwhile  # type: ignore[method-assign]
        engine.runs.observe(raw)
        await asyncio.wait_for(gone.wait(), 20)
        await asyncio.wait_for(engine.submit(run_object(2, input={"n": 2})), 20)
        assert not engine.store.knows(uid_of(raw))
        status = engine.runs.roster.status("w")
    assert (status["active"], status["queued"], engine.runs.roster.active()) == (0, 0, 0)


async def test_one_whose_earlier_journal_goes_while_it_is_read_is_refused(world: World) -> None:
    async with world.engine() as engine:
        await first(world, engine)
        uid, load = uid_of(run_object()), engine.store.load

        async def forgotten_meanwhile(asked: RunUid) -> Any:
            entries = await load(asked)
            engine.store.forget(uid)
            return entries

        engine.store.load = forgotten_meanwhile  # type: ignore[method-assign]
        state = await asyncio.wait_for(engine.submit(run_object(1, retryFrom=retry())), 20)
    assert state.terminal is not None and "the journal of run-0 was deleted" in state.terminal.message
