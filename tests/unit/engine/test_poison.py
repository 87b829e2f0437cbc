"""Poison objects before a whole engine: what is nested too deep, or breaks what looks at it, disturbs no other run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeGate, at_once, tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.api.canonical import MAX_DEPTH
from fairlead.engine.log import RunLog
from fairlead.engine.roster import Run
from fairlead.engine.runner import Runner
from fairlead.engine.tools import _outcome
from fairlead.flow.calls import Call

pytestmark = pytest.mark.requirement("A34")


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 254, 900])
async def test_a_signal_that_is_nested_too_deep_is_ignored_and_the_run_goes_on(world: World, levels: int) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), {"name": "nap", "wait": {"signal": {"name": "go"}}})
    deep = {"name": "go", "by": "eve", "data": nested(levels)}
    raw = run_object(signals=[deep])
    async with world.engine() as engine:
        engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        engine.runs.observe(raw)
        await asyncio.wait_for(engine.submit(run_object(1, signals=[{"name": "go", "by": "amy"}])), 20)
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: "data: nested deeper" in str(world.sink.of("run-0")[-1]))
        ended = engine.submit(run_object(signals=[deep, {"name": "go", "by": "amy", "data": 7}]))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Completed"


async def test_a_run_that_cannot_be_looked_at_is_in_the_way_of_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heed = Runner.heed

    def broken(self: Runner, run: Run, log: RunLog) -> None:
        if run.obj is not None and run.obj.spec.signals:
            raise RecursionError
        heed(self, run, log)

    monkeypatch.setattr(Runner, "heed", broken)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return await at_once(call)

    world.gate = FakeGate(answer)
    async with world.engine() as engine:
        engine.submit(run_object(0))
        await asyncio.wait_for(begun.wait(), 20)
        engine.runs.observe(run_object(0, signals=[{"name": "go", "by": "eve"}]))
        engine.runs.gone(uid_of(run_object(0)))
        go_on.set()
        await asyncio.wait_for(engine.submit(run_object(1)), 20)


@pytest.mark.parametrize("levels", [260, 900])
async def test_a_workflow_that_is_nested_too_deep_is_in_the_way_of_no_other(world: World, levels: int) -> None:
    async with world.engine() as engine:
        for number in range(2):  # an informer tells of it once more
            deep = workflow({"name": "t", "transform": {"value": nested(levels)}}, name="deep")
            world.resources.workflows["deep"] = deep
            engine.workflow_changed(["deep", "w"])
            await asyncio.wait_for(engine.submit(run_object(number)), 20)


@pytest.mark.parametrize(("levels", "reason"), [(MAX_DEPTH, None), (MAX_DEPTH + 1, "TooDeep"), (900, "TooDeep")])
def test_a_result_that_is_nested_too_deep_is_none(levels: int, reason: str | None) -> None:
    error = _outcome({"structuredContent": nested(levels)}, "desk", 1 << 20, 0.0).error
    assert (error.reason if error is not None else None) == reason
