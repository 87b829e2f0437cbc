"""Budgets at the gate: held with the intent, settled with the outcome, exact however many calls race."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.declared import model
from tests.unit.engine.gateworld import MODELS_URL, STEP, World, chat_call
from tests.unit.engine.test_gate_rules import rules

from fairlead.api.workflow import Limits
from fairlead.engine.metering import most
from fairlead.flow.calls import Call, CallId, CallIndex, Outcome
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.spending import NOTHING, Spend, Window, format_usd, window_at

PRICE = {"inputUSDPerMTok": "1000", "outputUSDPerMTok": "2000"}


def paid(**limits: Any) -> World:
    world = World(limits=Limits(**limits)) if limits else World()
    world.models["small"] = model(MODELS_URL, name="small", price=PRICE, limits={"maxOutputTokens": 100})
    return world


def asked(number: int) -> Call:
    return chat_call(id=CallId(STEP, 1, CallIndex(number)))


def held_by(world: World, call: Call) -> Spend:
    return most(call, world.models["small"])


def answers(given: int, made: int, **more: Any) -> Any:
    async def answer() -> Outcome:
        await asyncio.sleep(0)
        return Outcome(result={"content": "x", "toolCalls": []}, input_tokens=given, output_tokens=made, **more)

    return answer


def spent(world: World) -> Spend:
    usage = world.log.state.usage
    return Spend(usage.input_tokens, usage.output_tokens, usage.cost)


async def test_what_a_call_can_come_to_is_held_with_its_intent_and_settled_with_its_outcome() -> None:
    world, seen = paid(), []
    call = asked(0)

    async def look() -> Outcome:
        seen.append((world.log.state.usage.held_tokens, world.log.state.usage.held_cost))
        return await answers(10, 5)()

    world.answer = look
    await world.make(call)
    held = held_by(world, call)
    assert seen == [(held.tokens, held.cost)]
    intent, outcome = world.log.entries[-2:]
    assert (intent.data["holds"], outcome.data["usage"]) == (held.as_data(), Spend(10, 5, 20 * 10**9).as_data())
    assert spent(world) == Spend(10, 5, 10 * 10**9 + 5 * 2 * 10**9)
    assert (world.log.state.usage.held_tokens, world.log.state.usage.held_cost) == (0, 0)


async def test_a_call_of_which_nobody_knows_what_it_used_used_all_that_was_held() -> None:
    world = paid()
    world.answer = answers(0, 0, metered=False)
    await world.make(asked(0))
    assert spent(world) == held_by(world, asked(0))
    assert "usage" not in world.log.last()


async def test_a_cancelled_call_is_charged_once_it_was_sent_and_not_before() -> None:
    world = paid()
    sent = asyncio.Event()

    async def hang() -> Outcome:
        sent.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.answer = hang
    task = asyncio.create_task(world.make(asked(0)))
    await sent.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert spent(world) == held_by(world, asked(0))


@pytest.mark.requirement("A43")
@pytest.mark.parametrize("what", ["limits.tokens", "limits.costUSD", "budgets.run", "budgets.window"])
async def test_fifty_parallel_calls_never_pass_a_budget(what: str) -> None:
    one = held_by(paid(), asked(10))
    tokens, cost = one.tokens * 3 + one.tokens // 2, format_usd(one.cost * 3 + one.cost // 2)
    world = paid(**{"limits.tokens": {"tokens": tokens}, "limits.costUSD": {"costUSD": cost}}.get(what, {}))
    if what == "budgets.run":
        world.policies = {"p": rules(budgets={"run": {"costUSD": cost}})}
    if what == "budgets.window":
        world.policies = {"p": rules(budgets={"window": {"periodSeconds": 3600, "tokens": tokens}})}
    world.answer = answers(10**9, 10**9)  # a server that says that it used more than it can have
    await asyncio.gather(*(world.make(asked(number)) for number in range(50)))
    assert len(world.dispatched) == 3
    assert spent(world).tokens <= tokens
    reasons = {entry.data["reason"] for entry in world.log.entries if entry.kind is EntryKind.CALL_DENIED}
    assert reasons == {"BudgetExceeded"}


async def test_who_finds_only_calls_under_way_in_the_way_waits_for_them() -> None:
    one = held_by(paid(), asked(0))
    world = paid(tokens=one.tokens * 2)
    world.answer = answers(10, 5)
    await asyncio.gather(*(world.make(asked(number)) for number in range(20)))
    assert len(world.dispatched) == 20, "each took a small part of what it held"
    assert spent(world) == Spend(200, 100, 20 * 20 * 10**9)


async def test_a_window_is_settled_and_the_next_one_begins_with_nothing() -> None:
    world = paid()
    world.policies = {"p": rules(budgets={"window": {"periodSeconds": 60, "tokens": 10_000}})}
    world.answer = answers(10, 5)
    await world.make(asked(0))
    now = window_at("p", 60, world.clock.ms)
    assert world.log.windows.of(now).tokens == 15
    assert world.log.entries[-2].data["windows"] == [list(now)]
    world.clock.ms += 60_000
    await world.make(asked(1))
    assert world.log.windows.of(window_at("p", 60, world.clock.ms)).tokens == 15


async def test_an_outcome_settles_the_window_that_held_it_also_when_that_is_over() -> None:
    world = paid()
    world.policies = {"p": rules(budgets={"window": {"periodSeconds": 60, "tokens": 10_000}})}
    first = window_at("p", 60, world.clock.ms)

    async def late() -> Outcome:
        world.clock.ms += 60_000
        return await answers(10, 5)()

    world.answer = late
    await world.make(asked(0))
    assert world.log.windows.of(first).tokens == 15
    assert world.log.windows.of(window_at("p", 60, world.clock.ms)).tokens == 0


async def test_what_a_window_holds_for_a_call_that_vanished_counts_as_used() -> None:
    world = paid()
    one = held_by(world, asked(0))
    world.policies = {"p": rules(budgets={"window": {"periodSeconds": 3600, "tokens": one.tokens + 1}})}
    world.answer = answers(0, 0, metered=False)
    await world.make(asked(0))
    await world.make(asked(1))
    assert len(world.dispatched) == 1
    assert world.log.last()["reason"] == "BudgetExceeded"
    assert world.clock.ms < 1_000_000 + 60_000, "nothing is under way any more, so nobody waits"


@pytest.mark.requirement("A43", "G2")
async def test_a_model_that_is_asked_again_after_a_crash_is_paid_twice() -> None:
    world = paid()
    call = asked(0)
    held = held_by(world, call)
    data = {"index": str(call.id.index), "kind": "Chat", "target": "small", "digest": call.digest, "effect": "Read"}
    window = Window("p", 3_600_000, 0)
    intent = data | {"holds": held.as_data(), "windows": [list(window)]}
    world.log.append(Draft(EntryKind.CALL_INTENT, STEP, 1, intent))
    world.log.spend([window], held)
    world.policies = {"p": rules(budgets={"window": {"periodSeconds": 3600, "tokens": 2 * held.tokens}})}
    world.answer = answers(10, 5)
    await world.make(call)
    assert world.log.kinds() == ["CallIntent", "CallResent", "CallOutcome"]
    assert spent(world).tokens == held.tokens + 15
    assert world.log.windows.of(window).tokens == held.tokens + 15


@pytest.mark.requirement("A43")
async def test_a_model_is_not_asked_again_when_the_first_time_may_have_used_it_up() -> None:
    held = held_by(paid(), asked(0))
    world = paid(tokens=held.tokens * 2 - 1)
    call = asked(0)
    data = {"index": str(call.id.index), "kind": "Chat", "target": "small", "digest": call.digest, "effect": "Read"}
    world.log.append(Draft(EntryKind.CALL_INTENT, STEP, 1, data | {"holds": held.as_data()}))
    await world.make(call)
    assert world.dispatched == []
    assert world.log.last()["reason"] == "BudgetExceeded"
    assert (spent(world), world.log.state.usage.held_tokens) == (held, 0)


async def test_tokens_a_minute_hold_back_and_what_never_fits_is_denied_at_once() -> None:
    world = paid()
    one = held_by(world, asked(0))
    limits = {"maxOutputTokens": 100, "tokensPerMinute": one.tokens + 14}
    world.models["small"] = model(MODELS_URL, name="small", limits=limits)
    world.answer = answers(10, 5)
    for number in range(2):
        await world.make(asked(number))
    assert len(world.dispatched) == 2 and world.clock.ms >= 1_000_000 + 60_000
    world.models["small"] = model(MODELS_URL, name="small", limits=limits | {"tokensPerMinute": one.tokens - 1})
    await world.make(asked(2))
    assert len(world.dispatched) == 2
    assert "this call alone can need" in world.log.last()["message"]
    assert world.log.last()["reason"] == "BudgetExceeded"


def test_nothing_is_nothing() -> None:
    assert not NOTHING and Spend(cost=1)
