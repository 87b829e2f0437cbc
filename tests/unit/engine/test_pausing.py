"""A pause goes down: child runs of a paused run call nothing either, whenever they began and whatever restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld, child_step, entries, held, uid_of
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.runworld import run_object

from fairlead.engine.engine import WorkflowEngine
from fairlead.flow.calls import Outcome
from fairlead.flow.journal import EntryKind


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChildWorld:
    """`w` runs `c`, which runs `d`, which calls twice; a status is written as soon as it changes."""
    monkeypatch.setattr("fairlead.engine.status.INTERVAL_SECONDS", 0.0)
    world = ChildWorld(tmp_path / "journal.db")
    world.declare(child_step("ask", "d"), name="c", serviceAccountName="aide")
    world.declare(tool_step("a", "send"), tool_step("b", "send"), name="d", serviceAccountName="aide")
    return world


def asked(raw: dict[str, Any], state: str) -> dict[str, Any]:
    return raw | {"spec": raw["spec"] | {"desiredState": state}}


async def all_stand(world: ChildWorld, reason: str, *names: str) -> None:
    await world.until(lambda: {(world.succeeded(name) or ("", ""))[1] for name in names} == {reason})


async def completed(ended: asyncio.Future[Any]) -> None:
    state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Completed"


async def until_it_calls(world: ChildWorld, engine: WorkflowEngine) -> tuple[asyncio.Event, asyncio.Future[Any]]:
    """Start a run and wait for its grandchild's first call; return what lets that be answered, and the run's end."""
    begun, go_on, world.servers.answer = held()
    ended = engine.submit(run_object())
    await asyncio.wait_for(begun.wait(), 20)
    return go_on, ended


async def test_children_of_a_paused_run_call_nothing_until_it_is_resumed(world: ChildWorld) -> None:
    raw = run_object()
    async with world.serving() as engine:
        go_on, ended = await until_it_calls(world, engine)
        engine.runs.observe(asked(raw, "Paused"))
        go_on.set()
        await all_stand(world, "Paused", "run-0", *world.kube.made)
        assert world.servers.functions() == ["a:send"]
        engine.runs.observe(asked(raw, "Running"))
        await completed(ended)
    assert world.servers.functions() == ["a:send", "b:send"]


async def test_a_child_that_was_paused_itself_stays_so_when_its_parent_goes_on(world: ChildWorld) -> None:
    raw = run_object()
    async with world.serving() as engine:
        go_on, ended = await until_it_calls(world, engine)
        child = world.kube.objects[world.kube.made[0]]
        for told in (asked(child, "Paused"), asked(raw, "Paused"), asked(raw, "Running")):
            engine.runs.observe(told)
        go_on.set()
        await all_stand(world, "Paused", *world.kube.made)
        assert world.succeeded() == ("Unknown", "WaitingForChild") and world.servers.functions() == ["a:send"]
        engine.runs.observe(asked(child, "Running"))
        await completed(ended)


async def test_a_child_that_is_made_while_its_parent_is_paused_begins_paused(world: ChildWorld) -> None:
    raw, made, go_on = run_object(), asyncio.Event(), asyncio.Event()

    async def slowly(name: str) -> None:
        made.set()
        await go_on.wait()

    world.kube.on_create = slowly
    async with world.serving() as engine:
        ended = engine.submit(raw)
        await asyncio.wait_for(made.wait(), 20)
        engine.runs.observe(asked(raw, "Paused"))
        go_on.set()
        await world.until(lambda: len(world.kube.made) == 1)
        await all_stand(world, "Paused", "run-0", *world.kube.made)
        assert len(world.kube.made) == 1 and world.servers.asked == []
        engine.runs.observe(asked(raw, "Running"))
        await completed(ended)


async def test_children_are_paused_and_resumed_also_while_no_engine_looks(world: ChildWorld) -> None:
    raw = run_object()
    world.declare({"name": "nap", "wait": {"seconds": 600}}, tool_step("a", "send"), name="d")
    async with world.serving() as engine:
        engine.submit(raw)
        await world.until(lambda: len(world.kube.made) == 2)
        await all_stand(world, "Sleeping", world.kube.made[1])
    world.clock.now += 500_000
    async with world.serving(asked(raw, "Paused")):
        await all_stand(world, "Paused", "run-0", *world.kube.made)
        world.clock.now += 200_000
    async with world.serving(raw) as engine:
        await completed(engine.runs.end_of(uid_of(raw)))
        paused = [len(await entries(engine, child, EntryKind.PAUSED)) for child in world.kube.objects.values()]
    assert (paused, world.servers.functions()) == ([1, 1], ["a:send"])


async def test_a_paused_run_that_is_cancelled_has_no_child_go_on_before_it_ends(world: ChildWorld) -> None:
    raw = run_object()
    async with world.serving() as engine:
        go_on, ended = await until_it_calls(world, engine)
        engine.runs.observe(asked(raw, "Paused"))
        go_on.set()
        await all_stand(world, "Paused", *world.kube.made)
        engine.runs.observe(asked(raw, "Cancelled"))
        state = await asyncio.wait_for(ended, 20)
        await world.until(lambda: engine.runs.roster.all() == [])
    assert state.terminal is not None and state.terminal.reason == "Cancelled"
    assert world.servers.functions() == ["a:send"]


async def test_what_finally_runs_is_not_paused(world: ChildWorld) -> None:
    world.declare(tool_step("a", "send"), blocks=[{"name": "tidy", "steps": [child_step("t")]}], **{"finally": "tidy"})
    world.declare(tool_step("b", "send"), name="c", serviceAccountName="aide")
    begun, go_on, hold = held()

    async def answer(call: Any) -> Outcome:
        return await hold(call) if call.id.path == "a" else Outcome(result={})

    world.servers.answer = answer
    raw = run_object(timeoutSeconds=60)
    async with world.serving() as engine:
        ended = engine.submit(raw)
        await asyncio.wait_for(begun.wait(), 20)
        engine.runs.observe(asked(raw, "Paused"))
        go_on.set()
        await all_stand(world, "Paused", "run-0")
        world.clock.now += 61_000
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Timeout"
    assert world.succeeded(world.kube.made[0]) == ("True", "Completed")
