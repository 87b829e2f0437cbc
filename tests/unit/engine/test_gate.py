"""The gate before anything leaves: what it refuses, in which order, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.engine.gateworld import (
    ALLOWED,
    SECRET,
    START_MS,
    STEP,
    UNAVAILABLE,
    World,
    chat_call,
    close,
    deny,
    need_secret,
    nothing,
    pass_deadline,
    point_at,
    secret_for_elsewhere,
    start_again,
    tool_call,
)

from fairlead.api.workflow import Limits
from fairlead.engine.gate import LONGEST_WAIT_MS
from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind
from fairlead.policy.decision import Authorization


def deep(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"arguments": {"query": value}}


REFUSALS = [
    pytest.param(close, tool_call(), 1, "RunNotActive", id="the run is closing"),
    pytest.param(pass_deadline, tool_call(), 1, "RunNotActive", id="the run is past its deadline"),
    pytest.param(start_again, tool_call(), 1, "StaleAttempt", id="another attempt runs"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": float("nan")}}), 2, "Malformed", id="NaN"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": "\ud800"}}), 2, "Malformed", id="lone surrogate"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": 10**30}}), 2, "Malformed", id="too large a number"),
    pytest.param(nothing, tool_call(request={"arguments": {1: 2}}), 2, "Malformed", id="a key that is not text"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": b"x"}}), 2, "Malformed", id="bytes"),
    pytest.param(nothing, tool_call(request={"arguments": {"a": "x" * 2**20}}), 2, "Malformed", id="over 1 MiB"),
    pytest.param(nothing, tool_call(request=deep(64)), 2, "Malformed", id="too deep"),
    pytest.param(nothing, tool_call(request=deep(100_000)), 2, "Malformed", id="far too deep"),
    pytest.param(nothing, tool_call(target="none"), 4, "Invalid", id="no such tool"),
    pytest.param(nothing, tool_call("hidden"), 4, "Invalid", id="not in the contract"),
    pytest.param(nothing, tool_call(offered=False), 4, "Invalid", id="not offered"),
    pytest.param(nothing, tool_call("search", request={"arguments": {"query": 1}}), 4, "Invalid", id="misfit"),
    pytest.param(nothing, chat_call(target="embedder"), 4, "Invalid", id="chat with an embedder"),
    pytest.param(deny, tool_call(), 5, "Forbidden", id="no permission"),
    pytest.param(need_secret, tool_call(), 6, "CredentialMissing", id="no secret"),
    pytest.param(secret_for_elsewhere, tool_call(), 6, "EgressDenied", id="the secret is for another host"),
    pytest.param(point_at("http://169.254.169.254/mcp"), tool_call(), 6, "EgressDenied", id="metadata address"),
    pytest.param(point_at("http://[::1]:80/mcp"), tool_call(), 6, "EgressDenied", id="loopback address"),
    pytest.param(point_at("file:///etc/passwd"), tool_call(), 6, "EgressDenied", id="not http"),
]


@pytest.mark.requirement("P5")
@pytest.mark.parametrize(("arrange", "call", "stage", "reason"), REFUSALS)
async def test_a_refused_call_has_one_reason_and_never_leaves(
    arrange: Callable[[World], None], call: Call, stage: int, reason: str
) -> None:
    world = World()
    arrange(world)
    await world.make(call)
    denial = world.log.last()
    assert (denial["stage"], denial["reason"]) == (stage, reason)
    assert world.log.kinds()[-1] == "CallDenied" and "CallIntent" not in world.log.kinds()
    assert world.dispatched == [] and world.log.state.denials == 1


async def test_earlier_stages_speak_first() -> None:
    """With everything wrong at once, taking away the first objection brings up the next, in the contract's order."""
    world = World(limits=Limits(tool_calls=1))
    for ordinal in (1, 2):
        world.log.state.usage.tool_calls = 0
        await world.make(tool_call(ordinal=ordinal))
    infinite = {"arguments": {"a": float("inf")}}
    recorded = tool_call(ordinal=1, request={"arguments": {"other": 1}})
    unknown, fine = tool_call("hidden", ordinal=4), tool_call(ordinal=5)
    world.log.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))
    world.addresses["tickets"] = "http://127.0.0.1/mcp"
    deny(world)

    met = []
    for call, then in (
        (tool_call(ordinal=3, request=infinite), lambda: setattr(world.log.state, "closing", None)),
        (tool_call(ordinal=9, request=infinite), nothing_more),
        (recorded, nothing_more),
        (unknown, nothing_more),
        (fine, lambda: setattr(world, "authorization", lambda: ALLOWED)),
        (tool_call(ordinal=6), world.addresses.clear),
        (tool_call(ordinal=7), nothing_more),
        (tool_call(ordinal=8, request={"arguments": {"fresh": 1}}), nothing_more),
    ):
        before = len(world.log.entries)
        await world.make(call)
        met += [entry.data["reason"] for entry in world.log.entries[before:]]
        then()
    assert met == [
        "RunNotActive",
        "Malformed",
        "Nondeterminism",
        "Invalid",
        "Forbidden",
        "EgressDenied",
        "LoopDetected",
        "BudgetExceeded",
    ]


def nothing_more() -> None:
    pass


async def test_a_denial_names_the_permission_and_the_command_that_shows_it() -> None:
    world = World()
    deny(world)
    await world.make(tool_call())
    message = world.log.last()["message"]
    assert "invoke on toolfunctions/tickets.append or invoke on tools/tickets" in message
    assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/tickets.append -n team-a" in message


async def test_a_revoked_grant_stops_the_next_call() -> None:
    world = World()
    await world.make(tool_call(ordinal=1))
    deny(world)
    await world.make(tool_call(ordinal=2, request={"arguments": {"n": 2}}))
    assert len(world.dispatched) == 1 and world.log.last()["reason"] == "Forbidden"


@pytest.mark.requirement("A42")
async def test_the_third_identical_tool_call_of_an_attempt_is_a_loop() -> None:
    world = World()
    for ordinal in (1, 2, 3):
        await world.make(tool_call(ordinal=ordinal))
    assert len(world.dispatched) == 2 and world.log.last()["reason"] == "LoopDetected"


@pytest.mark.requirement("A42")
async def test_two_calls_in_turn_are_a_loop_too() -> None:
    world = World()
    for ordinal in range(1, 8):
        await world.make(tool_call(ordinal=ordinal, request={"arguments": {"query": "ab"[ordinal % 2]}}))
    assert len(world.dispatched) == 4, "each twice"
    assert [entry.data["reason"] for entry in world.log.entries if entry.kind == "CallDenied"] == ["LoopDetected"] * 3


@pytest.mark.parametrize(
    ("limits", "call"),
    [(Limits(tool_calls=0), tool_call()), (Limits(model_calls=0), chat_call()), (Limits(tokens=0), chat_call())],
)
async def test_a_run_without_room_for_one_more_call_does_not_make_it(limits: Limits, call: Call) -> None:
    world = World(limits=limits)
    await world.make(call)
    assert world.dispatched == [] and world.log.last()["reason"] == "BudgetExceeded"
    assert world.log.state.steps[STEP].calls[str(call.id.index)].error.error_class == "BudgetExceeded"  # type: ignore[union-attr]


async def test_parallel_calls_do_not_race_past_a_limit() -> None:
    world = World(limits=Limits(tool_calls=3))
    calls = [tool_call(ordinal=n, request={"arguments": {"n": n}}) for n in range(1, 11)]
    await asyncio.gather(*(world.make(call) for call in calls))
    assert len(world.dispatched) == 3 and world.log.state.denials == 7


@pytest.mark.requirement("F14")
async def test_a_call_waits_while_nobody_can_decide_and_goes_on_when_somebody_can() -> None:
    world = World()
    answers = iter([UNAVAILABLE] * 5 + [ALLOWED])
    world.authorization = lambda: next(answers)
    await world.make(tool_call(deadline_ms=START_MS + 1000))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.asked) == 6
    assert world.clock.ms > START_MS + 1000 and world.log.last()["status"] == "Succeeded", "waiting is not counted"
    assert world.arguments["timeout_seconds"] == 1.0


@pytest.mark.requirement("F14")
async def test_a_call_that_nobody_can_decide_ends_unavailable_and_never_leaves() -> None:
    world = World()
    world.authorization = lambda: UNAVAILABLE
    await world.make(tool_call())
    assert START_MS + LONGEST_WAIT_MS <= world.clock.ms <= START_MS + LONGEST_WAIT_MS + 2000
    assert world.dispatched == [] and "CallIntent" not in world.log.kinds()
    error = world.log.state.steps[STEP].calls["0.1.0"].error
    assert error is not None and (error.error_class, error.reason) == ("Unavailable", "AuthorizerUnavailable")


async def test_after_a_wait_the_stages_start_again() -> None:
    world = World()

    def cancel_meanwhile() -> Authorization:
        if len(world.asked) == 2:
            close(world)
        return UNAVAILABLE if len(world.asked) < 3 else ALLOWED

    world.authorization = cancel_meanwhile
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.last()["reason"] == "RunNotActive"


async def test_a_call_waits_for_a_secret_that_is_not_mounted_yet() -> None:
    world = World()
    need_secret(world)
    world.secrets = {("tickets", "token"): SECRET, ("tickets", "allowed-hosts"): "8.8.8.8:443"}
    world.pending = True

    def mount_later() -> Authorization:
        world.pending = len(world.asked) < 3
        return ALLOWED

    world.authorization = mount_later
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.asked) == 3
