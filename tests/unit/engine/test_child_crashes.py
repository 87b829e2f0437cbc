"""An engine that dies at every point of a child run: one child, one effect, and the parent learns of its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld, child_step, hang_once, run_object, uid_of
from tests.unit.engine.fakes import tool_step

from fairlead.engine.children import Children
from fairlead.engine.store import Store
from fairlead.flow.journal import EntryKind


@pytest.fixture
def world(tmp_path: Path) -> ChildWorld:
    world = ChildWorld(tmp_path / "journal.db")
    world.declare(tool_step("a", "read"), name="c")
    return world


def before_the_object(world: ChildWorld, hang: Any) -> None:
    world.kube.on_create = hang


def after_the_object(world: ChildWorld, hang: Any) -> None:
    world.kube.on_created = hang


def while_the_child_works(world: ChildWorld, hang: Any) -> None:
    world.servers.answer = hang


POINTS: list[Callable[[ChildWorld, Any], None]] = [before_the_object, after_the_object, while_the_child_works]


@pytest.mark.requirement("G1", "G2", "F12")
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
async def test_a_crash_leaves_one_child_whose_end_its_parent_gets(
    world: ChildWorld, point: Callable[[ChildWorld, Any], None]
) -> None:
    raw, answer = run_object(), world.servers.answer
    begun, hang = hang_once()
    point(world, hang)
    await world.crash(begun, raw)
    world.kube.on_create = world.kube.on_created = None
    world.servers.answer = answer
    async with world.serving(raw):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert len(world.kube.made) == 1
    assert world.sink.of("run-0")[-1]["output"] == {"text": "read"}


@pytest.mark.requirement("G7")
async def test_a_parent_that_was_not_told_of_its_childs_end_finds_out_after_a_restart(
    world: ChildWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = run_object()
    with monkeypatch.context() as patch:
        patch.setattr(Children, "ended", lambda self, child, state: None)
        async with world.serving() as engine:
            engine.submit(raw)
            await world.until(lambda: engine.runs.roster.status("c")["succeeded"] == 1)
            await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
    world.kube.objects.clear()  # even if nobody remembers the child but the store
    async with world.serving(raw):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.servers.functions() == ["a:read"]


async def test_a_child_that_never_began_and_is_gone_after_a_restart_is_made_again(world: ChildWorld) -> None:
    raw = run_object()
    world.declare(tool_step("a", "read"), name="c", status={"conditions": []})
    async with world.serving() as engine:
        engine.submit(raw)
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
    (name,) = world.kube.objects
    world.kube.objects.clear()
    world.declare(tool_step("a", "read"), name="c")
    async with world.serving(raw):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.kube.made == [name, name]
    assert world.servers.functions() == ["a:read"]


async def test_a_child_that_ended_before_its_parent_knew_of_it_is_not_overlooked(world: ChildWorld) -> None:
    async def until_it_has_ended(name: str) -> None:
        await world.until(lambda: bool(world.servers.asked) and world.succeeded(name) == ("True", "Completed"))

    raw = run_object()
    begun, hang = hang_once()
    after_the_object(world, hang)
    await world.crash(begun, raw)
    world.kube.on_created = until_it_has_ended
    async with world.serving(raw):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert len(world.kube.made) == 1


async def test_a_child_whose_parent_ended_while_nobody_looked_is_ended(world: ChildWorld) -> None:
    raw = run_object()
    begun, hang = hang_once()
    while_the_child_works(world, hang)
    await world.crash(begun, raw)
    async with world.serving() as engine:  # the parent's object was deleted
        await world.until(lambda: not engine.runs.roster.all())
    store = await Store.open(world.path, clock=world.clock)
    states = {row.name: row.state for row in await store.runs()}
    await store.close()
    assert states == dict.fromkeys(("run-0", world.child["metadata"]["name"]), EntryKind.RUN_CANCELLED)


async def test_children_of_children_find_their_way_up_after_a_crash(world: ChildWorld) -> None:
    raw, answer = run_object(), world.servers.answer
    world.declare(child_step("below", "c"), name="middle")
    world.declare(child_step("ask", "middle"))
    begun, hang = hang_once()
    while_the_child_works(world, hang)
    await world.crash(begun, raw)
    world.servers.answer = answer
    async with world.serving(raw):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert len(world.kube.made) == 2


async def test_several_children_at_once_are_each_heard(world: ChildWorld) -> None:
    steps = [child_step(f"s{number}", "c") for number in range(5)]
    world.declare(*steps, order="Graph", output=[f"$( steps.s{number}.output.text )" for number in range(5)])
    async with world.serving() as engine:
        state = await asyncio.wait_for(engine.submit(run_object()), 20)
        assert engine.runs.roster.get(uid_of(run_object())) is None
    assert state.terminal is not None
    assert state.terminal.output == ["read"] * 5
    assert len(world.kube.made) == 5
