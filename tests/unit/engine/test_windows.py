"""Windows of Policies' budgets in the store: in the commit of what changed them, over all runs, over every restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from tests.unit.engine.childworld import ChildWorld, entries, hang_once
from tests.unit.engine.runworld import run_object
from tests.unit.engine.test_models import HELLO

from fairlead.api.policy import Policy
from fairlead.engine.metering import most
from fairlead.engine.policies import Did
from fairlead.engine.store.windows import MOST, Spent, Windows
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.journal import EntryKind
from fairlead.flow.journal import Path as Place
from fairlead.flow.spending import Window, window_at

STEP = Place("ask")
CALL = Call(CallId(STEP, 1, CallIndex()), CallKind.CHAT, "m", request={"messages": HELLO, "parameters": {}})
ASKS = {"name": "ask", "generate": {"model": "m", "prompt": "Hello"}}


def sharing(**window: Any) -> Policy:
    rules = {"budgets": {"window": {"periodSeconds": 3600, **window}}}
    return Policy.model_validate({"metadata": {"name": "p", "uid": "p-uid"}, "spec": {"rules": rules}})


def world_at(path: Path, **window: Any) -> ChildWorld:
    world = ChildWorld(path / "journal.db")
    world.declare(ASKS)
    world.resources.policies["p"] = sharing(**window)

    async def answer(call: Call) -> Outcome:
        return Outcome(result={"content": "hello", "toolCalls": []}, input_tokens=10, output_tokens=5)

    world.servers.answer = answer
    return world


async def test_all_runs_share_it_and_a_restart_forgets_nothing(tmp_path: Path) -> None:
    world = world_at(tmp_path, tokens=10**9)
    window = window_at("p", 3600, world.clock())
    async with world.serving() as engine:
        for number in range(3):
            await asyncio.wait_for(engine.submit(run_object(number)), 20)
        assert engine.store.spent(window) == Spent(45, 0, 3)
    async with world.serving() as engine:
        assert engine.store.spent(window) == Spent(45, 0, 3)


@pytest.mark.requirement("A43")
async def test_a_crash_between_reserve_and_settle_leaves_the_most_it_can_have_been(tmp_path: Path) -> None:
    world = world_at(tmp_path, tokens=10**9)
    window = window_at("p", 3600, world.clock())
    begun, hang = hang_once()
    answer, world.servers.answer = world.servers.answer, hang
    raw = run_object()
    await world.crash(begun, raw)
    held = most(world.servers.asked[0], world.resources.models["m"]).tokens
    world.servers.answer = answer
    async with world.serving(raw) as engine:
        assert engine.store.spent(window).tokens == held
        await asyncio.wait_for(engine.submit(raw), 20)
        assert engine.store.spent(window).tokens == held + 15, "both times"
        (resent,) = await entries(engine, raw, EntryKind.CALL_RESENT)
        assert resent.data["windows"] == [list(window)]


LOOP = ASKS | {"forEach": {"items": [*range(20)], "maxParallel": 20}}


@pytest.mark.requirement("A43")
async def test_a_loop_stays_within_its_limit_and_keeps_what_it_has(tmp_path: Path) -> None:
    world = world_at(tmp_path, tokens=10**9)
    held = most(CALL, world.resources.models["m"]).tokens
    world.declare(LOOP | {"limits": {"tokens": held * 2}})

    async def greedy(call: Call) -> Outcome:
        return Outcome(result={"content": "hello", "toolCalls": []}, input_tokens=10**9, output_tokens=10**9)

    world.servers.answer = greedy
    async with world.serving() as engine:
        end = await asyncio.wait_for(engine.submit(run_object()), 30)
    step = end.steps[STEP]
    assert end.terminal is not None and end.terminal.reason == "Completed"
    assert len(world.servers.asked) == 2
    assert step.used is not None and step.used.tokens <= held * 2
    assert [value is None for value in step.output].count(False) == 2
    assert step.partial == f"BudgetExceeded: tokens {held * 2} reached, 18 of 20 skipped"


async def test_one_run_too_many_ends_before_it_begins_and_says_until_when(tmp_path: Path) -> None:
    world = world_at(tmp_path, runs=2)
    async with world.serving() as engine:
        ends = [await asyncio.wait_for(engine.submit(run_object(number)), 20) for number in range(3)]
    reasons = [end.terminal.reason for end in ends if end.terminal]
    assert reasons == ["Completed", "Completed", "BudgetExceeded"]
    assert ends[2].terminal is not None
    assert "Policy p, rule budgets.window.runs: 2 of 2 runs have begun until" in ends[2].terminal.message
    assert ends[2].accepted is None
    world.clock.now += 3_600_000
    async with world.serving() as engine:
        assert (await asyncio.wait_for(engine.submit(run_object(4)), 20)).accepted is not None


@pytest.mark.requirement("P3")
async def test_in_audit_mode_one_run_too_many_begins_and_is_recorded_and_counted(tmp_path: Path) -> None:
    world, did = world_at(tmp_path, runs=1), list[tuple[str, Did]]()
    found = sharing(runs=1)
    world.resources.policies["p"] = found.model_copy(update={"spec": found.spec.model_copy(update={"mode": "Audit"})})
    async with world.engine(on_rule=lambda policy, what: did.append((policy, what))) as engine:
        for number in range(2):
            end = await asyncio.wait_for(engine.submit(run_object(number)), 20)
            assert end.terminal is not None and end.terminal.reason == "Completed"
        first, second = [(await entries(engine, run_object(number), EntryKind.RUN_ACCEPTED))[0] for number in range(2)]
        record = json.loads((await engine.store.audit_of(second.run_uid))[0])
        counted = generate_latest(engine.metrics.registry).decode()
    assert "wouldDeny" not in first.data
    (said,) = second.data["wouldDeny"]
    assert said.startswith("Policy p, rule budgets.window.runs: 1 of 1 runs have begun until")
    assert record["admin"]["wouldDeny"] == [said]
    assert did == [("p", Did.WOULD_DENY)]
    assert 'fairlead_would_deny_total{policy="p",rule="budgets.window.runs"} 1.0' in counted


async def test_old_windows_go_with_the_old_audit(tmp_path: Path) -> None:
    world = world_at(tmp_path, tokens=10**9)
    window = window_at("p", 3600, world.clock())
    async with world.serving() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        engine.store.prune_audit(window.end)
        await engine.store.durable()
        assert engine.store.spent(window).tokens == 15, "it is over only now"
        engine.store.prune_audit(window.end + 1)
        await engine.store.durable()
    async with world.serving() as engine:
        assert engine.store.spent(window) == Spent()


def test_a_row_never_holds_what_it_cannot() -> None:
    rows, window = Windows({}), Window("p", 1, 0)
    rows.add(window, cost=MOST)
    assert rows.add(window, cost=1).cost == MOST
    assert rows.add(window, tokens=-5).tokens == 0
