"""A journal restored from a copy: what the cluster knows better is not executed, what has not moved goes on."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.engine.roster import Standing
from fairlead.flow.journal import EntryKind

GO = {"name": "go", "data": None, "by": "alice"}
WAITING = ("Unknown", "WaitingForSignal")
WAIT = {"name": "hold", "wait": {"signal": {"name": "go"}}}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A Workflow that calls, waits for a signal, and calls again."""
    return World(tmp_path / "store" / "journal.db", workflow(tool_step("a", "send"), WAIT, tool_step("b", "send")))


def copied(world: World, to: str) -> None:
    """Copy every file of the store, as they are at this moment, while the engine has them open."""
    shutil.copytree(world.path.parent, world.path.parent.parent / to)


def restored(world: World, copy: str) -> None:
    shutil.rmtree(world.path.parent)
    (world.path.parent.parent / copy).rename(world.path.parent)


def as_the_cluster_has_it(world: World, raw: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return the run with its last status."""
    return raw | {"spec": raw["spec"] | spec, "status": world.sink.of(raw["metadata"]["name"])[-1]}


@pytest.mark.requirement("G8", "A65")
async def test_what_went_on_after_the_backup_is_lost_and_never_repeated(world: World) -> None:
    world.path.parent.mkdir()
    moved, waits, later = run_object(0), run_object(1), run_object(2)
    async with world.engine() as engine:
        ended = engine.submit(moved)
        engine.submit(waits)
        await world.until(lambda: world.succeeded("run-0") == world.succeeded("run-1") == WAITING)
        copied(world, "backup")
        engine.runs.observe(moved | {"spec": moved["spec"] | {"signals": [GO]}})
        await asyncio.wait_for(ended, 20)
        engine.submit(later)
        await world.until(lambda: world.succeeded("run-2") == WAITING)
    dispatched = list(world.gate.dispatched)
    objects = [
        as_the_cluster_has_it(world, moved, signals=[GO]),
        as_the_cluster_has_it(world, waits),
        as_the_cluster_has_it(world, later),
    ]
    restored(world, "backup")
    async with world.engine(objects=objects) as engine:
        await world.until(lambda: world.succeeded("run-2") == ("False", "StateLost"))
        entries = await engine.store.load(uid_of(moved))
        assert entries[-1].kind is EntryKind.RUN_SUCCEEDED, "a finished object always wins"
        run = engine.runs.roster.get(uid_of(waits))
        assert run is not None and run.standing is Standing.PARKED
        assert world.gate.dispatched == dispatched
        engine.runs.observe(objects[1] | {"spec": waits["spec"] | {"signals": [GO]}})
        await world.until(lambda: world.succeeded("run-1") == ("True", "Completed"))
    assert world.gate.dispatched == [*dispatched, "b:send"]


@pytest.mark.requirement("G8", "A65")
async def test_a_copy_that_is_younger_than_every_status_loses_nothing(world: World) -> None:
    world.path.parent.mkdir()
    raw = run_object()
    async with world.engine() as engine:
        engine.submit(raw)
        await world.until(lambda: world.succeeded() == WAITING)
        copied(world, "backup")
    restored(world, "backup")
    told = as_the_cluster_has_it(world, raw, signals=[GO])
    async with world.engine(objects=[told]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:send", "b:send"]
