"""Items and branches in the engine: in flight together, cancelled together, and never twice after a kill."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeGate, tool_step, workflow
from tests.unit.engine.runworld import World, killed, open_engine, run_object

from fairlead.flow.calls import Call


def in_parallel(*functions: str, mode: str = "All") -> dict[str, Any]:
    """Return a step and the blocks that it runs, each called like the one function that it calls."""
    step = {"name": "both", "parallel": {"blocks": [*functions], "join": {"mode": mode}}}
    blocks = [{"name": function, "steps": [tool_step("do", function)]} for function in functions]
    return {"step": step, "blocks": blocks}


def world_of(path: Path, *steps: dict[str, Any], **spec: Any) -> World:
    return World(path / "journal.db", workflow(*steps, **spec))


async def output_of_one_run(world: World) -> Any:
    async with world.engine() as engine:
        engine.submit(run_object())
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    return world.sink.of("run-0")[-1]["output"]


async def test_so_many_items_are_in_flight_together(tmp_path: Path) -> None:
    together = asyncio.Barrier(3)

    async def meet(call: Call) -> dict[str, Any]:
        await together.wait()
        return {"result": call.id.path}

    items = {"items": [*range(6)], "maxParallel": 3}
    world = world_of(tmp_path, tool_step("a", forEach=items))
    world.gate = FakeGate(meet)
    assert await asyncio.wait_for(output_of_one_run(world), 20) == [f"a[{index}]" for index in range(6)]


async def test_branches_are_in_flight_together(tmp_path: Path) -> None:
    together = asyncio.Barrier(2)

    async def meet(call: Call) -> dict[str, Any]:
        await together.wait()
        return {"result": call.function}

    both = in_parallel("read", "send")
    world = world_of(tmp_path, both["step"], blocks=both["blocks"])
    world.gate = FakeGate(meet)
    assert await asyncio.wait_for(output_of_one_run(world), 20) == {"read": "read", "send": "send"}


async def test_a_met_join_cancels_reads_at_once_and_lets_effects_tell_how_they_went(tmp_path: Path) -> None:
    under_way = {"read": asyncio.Event(), "send": asyncio.Event()}
    cancelled = asyncio.Event()

    async def answer(call: Call) -> dict[str, Any]:
        if call.function == "put":
            for begun in under_way.values():
                await begun.wait()
            return {"result": "put"}
        under_way[call.function].set()
        try:
            await cancelled.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {"result": "sent"}

    both = in_parallel("read", "send", "put", mode="Any")
    world = world_of(tmp_path, both["step"], blocks=both["blocks"])
    world.gate = FakeGate(answer)
    output = await asyncio.wait_for(output_of_one_run(world), 20)
    assert output == {"read": None, "send": "sent", "put": "put"}
    rows = {row["path"]: row.get("message", "") for row in world.sink.of("run-0")[-1]["steps"]}
    assert rows["both/read"].startswith("Cancelled")


async def test_items_and_branches_are_counted_by_their_kind(tmp_path: Path) -> None:
    both = in_parallel("read", "send")
    world = world_of(tmp_path, {**both["step"], "forEach": {"items": [1, 2]}}, blocks=both["blocks"])
    async with world.engine() as engine:
        engine.submit(run_object())
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        exposed = engine.metrics.expose().decode()
    counted = [line.split() for line in exposed.splitlines() if line.startswith("fairlead_steps_total")]
    ended = {kind.partition('kind="')[2].partition('"')[0]: float(number) for kind, number in counted}
    assert ended == {"parallel": 3, "block": 4, "tool": 4}


@pytest.mark.requirement("G1")
async def test_after_a_kill_finished_items_are_not_run_again(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def hang_at_the_third(call: Call) -> dict[str, Any]:
        if call.id.path == "a[2]":
            begun.set()
            await asyncio.Event().wait()
        return {"result": call.id.path}

    async def answer(call: Call) -> dict[str, Any]:
        return {"result": f"{call.id.path} again"}

    world = world_of(tmp_path, tool_step("a", "put", forEach={"items": [1, 2, 3, 4]}))
    world.gate = FakeGate(hang_at_the_third)
    raw = run_object()
    async with killed(await open_engine(world), begun, raw):
        pass
    world.gate = FakeGate(answer)
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a[2]:put", "a[3]:put"]
    assert world.sink.of("run-0")[-1]["output"] == ["a[0]", "a[1]", "a[2] again", "a[3] again"]
