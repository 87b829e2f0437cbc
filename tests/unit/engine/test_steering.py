"""Signals and pauses of runs that are driven, parked, or met by an engine that restarts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.engine.roster import Standing

GO = {"name": "go", "data": 7, "by": "alice"}
WAIT = {"name": "ask", "wait": {"signal": {"name": "go"}}}


@pytest.fixture
def waiting(tmp_path: Path) -> World:
    """A Workflow that waits for a signal, then calls."""
    return World(tmp_path / "journal.db", workflow(WAIT, tool_step("after", "send")))


def changed(raw: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return raw | {"spec": raw["spec"] | spec}


def standing(engine: Any, raw: dict[str, Any]) -> Standing | None:
    run = engine.runs.roster.get(uid_of(raw))
    return run.standing if run is not None else None


@pytest.mark.requirement("G7")
async def test_a_waiting_run_is_a_row_and_a_signal_wakes_it(waiting: World) -> None:
    raw = run_object()
    async with waiting.engine() as engine:
        ended = engine.submit(raw)
        await waiting.until(lambda: standing(engine, raw) is Standing.PARKED)
        run = engine.runs.roster.get(uid_of(raw))
        assert run is not None and run.task is None and run.log is None
        engine.runs.observe(changed(raw, signals=[GO]))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Completed"
    assert waiting.gate.dispatched == ["after:send"]


@pytest.mark.requirement("G7")
async def test_a_signal_that_came_while_no_engine_ran_is_taken(waiting: World) -> None:
    raw = run_object()
    async with waiting.engine() as engine:
        engine.submit(raw)
        await waiting.until(lambda: standing(engine, raw) is Standing.PARKED)
    told = changed(raw, signals=[GO])
    async with waiting.engine(objects=[told]):
        await waiting.until(lambda: waiting.succeeded() == ("True", "Completed"))
    assert waiting.gate.dispatched == ["after:send"]


async def test_the_same_signal_seen_again_is_one_signal(waiting: World) -> None:
    raw = run_object()
    async with waiting.engine() as engine:
        ended = engine.submit(raw)
        await waiting.until(lambda: standing(engine, raw) is Standing.PARKED)
        for _ in range(3):
            engine.runs.observe(changed(raw, signals=[GO]))
        state = await asyncio.wait_for(ended, 20)
    assert len(state.signals) == 1


async def test_a_paused_run_calls_nothing_and_goes_on_when_it_is_resumed(world: World) -> None:
    raw = run_object(desiredState="Paused")
    async with world.engine() as engine:
        ended = engine.submit(raw)
        await world.until(lambda: (world.succeeded() or ("", ""))[1] == "Paused")
        assert world.gate.dispatched == []
        engine.runs.observe(changed(raw, desiredState="Running"))
        await asyncio.wait_for(ended, 20)
    assert world.gate.dispatched == ["a:read", "b:send"]


@pytest.mark.requirement("G7")
async def test_a_pause_and_its_end_outlive_the_engine(world: World) -> None:
    raw = run_object(desiredState="Paused")
    async with world.engine() as engine:
        engine.submit(raw)
        await world.until(lambda: (world.succeeded() or ("", ""))[1] == "Paused")
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: standing(engine, raw) is Standing.PARKED)
        assert world.gate.dispatched == []
    async with world.engine(objects=[changed(raw, desiredState="Running")]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]
