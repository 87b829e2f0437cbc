"""Rates: how many calls a minute, of all runs, exact however many ask at once, and not forgotten by a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.gateworld import World, chat_call, tool_call
from tests.unit.engine.runworld import run_object

from fairlead.api.model import ModelLimits
from fairlead.api.policy import Policy
from fairlead.engine.recent import WINDOW_MS, RecentCalls
from fairlead.flow.calls import Call, CallId, CallIndex


def asked(number: int) -> Call:
    return tool_call(ordinal=number + 1, request={"arguments": {"query": f"q{number}"}})


def limited(**limit: Any) -> Policy:
    rules = {"limits": [{"tool": "tickets", **limit}]}
    return Policy.model_validate({"metadata": {"name": "p"}, "spec": {"rules": rules}})


async def made(world: World, *calls: Call) -> list[int]:
    """Make calls one after the other, and return when each left, in ms from the first."""
    left = []
    for call in calls:
        await world.make(call)
        left.append(world.clock.ms)
    return [ms - left[0] for ms in left]


async def test_what_comes_too_early_waits_until_the_minute_is_over() -> None:
    world = World(spec={"limits": {"ratePerMinute": 2}})
    times = await made(world, *map(asked, range(4)))
    assert len(world.dispatched) == 4
    assert times[1] == 0 and WINDOW_MS <= times[2] <= times[3] < WINDOW_MS + 5_000


async def test_fifty_that_ask_at_once_are_no_more_than_the_rate() -> None:
    world = World(spec={"limits": {"ratePerMinute": 7}})
    counts: list[int] = []

    async def look() -> None:
        while world.clock.ms < 1_000_000 + WINDOW_MS - 3_000:
            counts.append(len(world.dispatched))
            await asyncio.sleep(0)

    calls = asyncio.gather(*(world.make(asked(number)) for number in range(50)))
    await look()
    assert max(counts) == 7
    calls.cancel()
    await asyncio.gather(calls, return_exceptions=True)


async def test_a_models_rate_counts_its_requests() -> None:
    world = World()
    small = world.models["small"]
    limits = ModelLimits(requests_per_minute=1)
    world.models["small"] = small.model_copy(update={"spec": small.spec.model_copy(update={"limits": limits})})
    again = chat_call(request={"messages": [{"role": "user", "content": "again"}], "parameters": {}})
    again = replace(again, id=CallId(again.id.path, 1, CallIndex(1)))
    times = await made(world, chat_call(), again)
    assert times[1] >= WINDOW_MS


@pytest.mark.parametrize(
    ("limit", "waits"), [({}, True), ({"function": "append"}, True), ({"function": "search"}, False)]
)
async def test_a_rule_says_it_for_a_tool_or_one_function(limit: dict[str, Any], waits: bool) -> None:
    world = World()
    world.policies = {"p": limited(ratePerMinute=1, **limit)}
    times = await made(world, asked(0), asked(1))
    assert (times[1] >= WINDOW_MS) is waits


async def test_who_waits_too_long_is_told_so() -> None:
    world = World(spec={"limits": {"ratePerMinute": 1}})
    for _ in range(5):
        world.gate._recent._note("Tool", "tickets", "append", 10**12)  # of a clock that went back
    await world.make(asked(0))
    assert world.dispatched == []
    assert (world.log.last()["reason"], world.log.last()["stage"]) == ("RateLimited", 8)
    assert "5 of 1 calls of Tool tickets were made within a minute" in world.log.last()["message"]


async def test_a_restart_does_not_forget_what_was_called(tmp_path: Path) -> None:
    world = ChildWorld(tmp_path / "journal.db")
    world.declare(tool_step("a"), tool_step("b", "send"), tool_step("c"))
    async with world.serving() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
    recent = RecentCalls(world.clock)
    async with world.serving() as engine:
        await recent.read_back(engine.store)
    call = tool_call(target="desk")
    assert recent.of(call) == {"read": 2, "send": 1}
    world.clock.now += WINDOW_MS
    assert recent.of(call) == {}
