"""The gate and the world: what is recorded before and after a call leaves, and what happens once at most."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from tests.unit.engine.gateworld import (
    DEADLINE_MS,
    SECRET,
    START_MS,
    STEP,
    UID,
    World,
    chat_call,
    deny,
    make_tool,
    need_secret,
    tool_call,
)

from fairlead.api.workflow import Limits
from fairlead.engine.credentials import REDACTED
from fairlead.errors import StoreError
from fairlead.flow.calls import Call, CallError, Outcome
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.state import apply, new_state
from fairlead.policy.decision import Authorization


async def test_an_allowed_call_is_recorded_sent_and_recorded_again() -> None:
    world = World()
    await world.make(tool_call("create"))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"]
    assert world.log.entries[2].data == {
        "index": "0.1.0",
        "kind": "Tool",
        "target": "tickets",
        "function": "create",
        "digest": tool_call("create").digest,
        "effect": "Reversible",
        "reach": "External",
        "key": tool_call().idempotency_key(UID),
    }
    assert world.log.last()["status"] == "Succeeded" and world.log.last()["result"] == {"text": "done"}
    assert world.arguments["idempotency_key"] == tool_call().idempotency_key(UID)
    assert world.arguments["trace_parent"].startswith("00-7f0c3a52000040008000000000000001-")


@pytest.mark.requirement("G3")
async def test_nothing_leaves_before_its_intent_is_durable() -> None:
    world = World()
    seen: list[tuple[list[str], int]] = []

    async def durable() -> None:
        seen.append((world.log.kinds(), len(world.dispatched)))

    world.log.on_durable = durable
    await world.make(tool_call())
    assert seen == [(["CallIntent"], 0)] and len(world.dispatched) == 1


@pytest.mark.requirement("G3")
async def test_an_intent_that_cannot_be_stored_is_not_carried_out() -> None:
    world = World()

    async def fail() -> None:
        raise StoreError("disk full")

    world.log.on_durable = fail
    with pytest.raises(StoreError):
        await world.make(tool_call())
    assert world.dispatched == [] and world.log.kinds() == ["CallIntent"]


@pytest.mark.requirement("G3")
async def test_a_log_that_takes_nothing_more_lets_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(world.log, "note", lambda *drafts: None)
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.kinds() == []


@pytest.mark.parametrize("function", ["search", "create"])
@pytest.mark.requirement("G2")
async def test_a_resumed_call_is_decided_anew_and_keeps_its_intent(function: str) -> None:
    world = World(limits=Limits(tool_calls=1))

    async def die() -> Outcome:
        raise asyncio.CancelledError

    world.answer = die
    task = asyncio.create_task(world.make(tool_call(function)))
    await asyncio.wait([task])
    world.log.entries = [entry for entry in world.log.entries if entry.kind is not EntryKind.CALL_OUTCOME]
    world.log.state = new_state()
    for entry in world.log.entries:
        world.log.state = apply(world.log.state, entry)

    world.answer = None
    asked = len(world.asked)
    await world.make(tool_call(function))
    assert world.log.kinds() == ["CallIntent", "CallOutcome"]
    assert len(world.dispatched) == 2 and len(world.asked) == asked + 1


async def test_a_resumed_call_whose_grant_is_gone_is_denied() -> None:
    world = World()
    intent = {"index": "0.1.0", "kind": "Tool", "target": "tickets", "function": "search", "effect": "Read"}
    world.log.append(Draft(EntryKind.CALL_INTENT, STEP, 1, intent | {"digest": tool_call("search").digest}))
    deny(world)
    await world.make(tool_call("search"))
    assert world.dispatched == [] and world.log.kinds() == ["CallIntent", "CallDenied"]


def begun(world: World, function: str, effect: str, **more: str) -> Call:
    """Have a call's intent on record, as an engine finds it that starts."""
    call = tool_call(function)
    intent = {"index": "0.1.0", "kind": "Tool", "target": "tickets", "function": function, "effect": effect} | more
    world.log.append(Draft(EntryKind.CALL_INTENT, STEP, 1, intent | {"digest": call.digest}))
    return call


@pytest.mark.requirement("G3")
async def test_a_resumed_effect_that_may_not_be_made_any_more_may_have_happened_before() -> None:
    world = World()
    call = begun(world, "create", "Reversible", key="k")
    deny(world)
    await world.make(call)
    assert world.dispatched == [] and world.log.kinds() == ["CallIntent", "CallOutcome"]
    failed = world.log.last()["error"]
    assert failed["class"] == "OutcomeUnknown"
    assert failed["message"].startswith("it is unknown whether tickets.create took effect; it is not made again: ")


@pytest.mark.requirement("G2")
@pytest.mark.parametrize(("effect", "more"), [("Read", {}), ("Irreversible", {"key": "k"})])
async def test_what_its_contract_no_longer_lets_repeat_is_not_resumed(effect: str, more: dict[str, str]) -> None:
    world = World()
    call = begun(world, "create", effect, **more)
    world.tools["tickets"] = make_tool(functions=[{"name": "create", "effect": "Irreversible"}])
    await world.make(call)
    assert world.dispatched == [] and world.log.last()["error"]["class"] == "OutcomeUnknown"


async def test_a_resumed_call_keeps_the_key_that_it_was_begun_with() -> None:
    world = World()
    await world.make(begun(world, "create", "Reversible", key="k"))
    assert world.arguments["idempotency_key"] == "k"


async def test_a_settled_call_is_left_alone() -> None:
    world = World()
    await world.make(tool_call())
    deny(world)
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and len(world.dispatched) == 1


async def test_another_request_under_a_known_index_is_nondeterminism() -> None:
    world = World()
    await world.make(tool_call())
    await world.make(tool_call(request={"arguments": {"query": "other"}}))
    assert world.log.last()["reason"] == "Nondeterminism" and len(world.dispatched) == 1


async def _cancel_open(world: World, call: Call) -> None:
    sent = asyncio.Event()

    async def hang() -> Outcome:
        sent.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.answer = hang
    task = asyncio.create_task(world.make(call))
    await sent.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("call", [tool_call("search"), chat_call()], ids=["function", "model"])
async def test_a_cancelled_read_is_recorded_as_cancelled(call: Call) -> None:
    world = World()
    await _cancel_open(world, call)
    assert world.log.kinds() == ["CallIntent", "CallOutcome"] and world.log.last()["error"]["class"] == "Cancelled"


@pytest.mark.requirement("G3")
@pytest.mark.parametrize("function", ["append", "create"])
async def test_a_cancelled_effect_stays_open(function: str) -> None:
    world = World()
    await _cancel_open(world, tool_call(function))
    assert world.log.kinds() == ["CallIntent"]


async def test_an_effect_that_is_cancelled_before_it_was_sent_is_recorded_as_cancelled() -> None:
    world = World()
    world.log.on_durable = asyncio.Event().wait  # type: ignore[assignment]  # waits for ever
    task = asyncio.create_task(world.make(tool_call()))
    while not world.log.kinds():
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.dispatched == [] and world.log.last()["error"]["class"] == "Cancelled"


async def test_an_answer_after_the_end_changes_nothing_but_the_audit() -> None:
    world = World()

    async def late() -> Outcome:
        world.log.append(Draft(EntryKind.RUN_CANCELLED, data={"message": ""}))
        return Outcome(result={"text": "late"})

    world.answer = late
    await world.make(tool_call())
    assert world.log.kinds() == ["CallIntent", "RunCancelled"]
    (answer,) = world.log.too_late
    assert (answer.kind, answer.data["result"]) == (EntryKind.CALL_OUTCOME, {"text": "late"})


async def test_no_more_calls_are_in_flight_than_the_tool_allows() -> None:
    world = World(spec={"limits": {"concurrency": 2}})
    flying, most = 0, 0

    async def answer() -> Outcome:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(5):
            await asyncio.sleep(0)
        flying -= 1
        return Outcome(result={})

    world.answer = answer
    await asyncio.gather(*(world.make(tool_call(ordinal=n, request={"arguments": {"n": n}})) for n in range(1, 8)))
    assert most == 2 and len(world.dispatched) == 7


async def test_a_grant_that_is_revoked_while_a_call_waits_for_its_turn_stops_it() -> None:
    world = World(spec={"limits": {"concurrency": 1}})
    go = asyncio.Event()

    async def answer() -> Outcome:
        await go.wait()
        return Outcome(result={})

    world.answer = answer
    first = asyncio.create_task(world.make(tool_call(ordinal=1)))
    second = asyncio.create_task(world.make(tool_call(ordinal=2, request={"arguments": {"n": 2}})))
    while len(world.asked) < 2:
        await asyncio.sleep(0)
    assert world.log.kinds() == ["CallIntent"], "a call that waits for its turn has no intent yet"
    deny(world)
    go.set()
    await asyncio.gather(first, second)
    assert len(world.dispatched) == 1 and world.log.kinds() == ["CallIntent", "CallOutcome", "CallDenied"]


@pytest.mark.parametrize(("function", "expected"), [("append", "OutcomeUnknown"), ("search", "Internal")])
async def test_an_adapter_that_breaks_leaves_no_call_open(function: str, expected: str) -> None:
    world = World()

    async def broken() -> Outcome:
        raise RuntimeError

    world.answer = broken
    await world.make(tool_call(function))
    assert world.log.last()["error"]["class"] == expected


async def test_a_decision_that_breaks_denies() -> None:
    world = World()

    def broken() -> Authorization:
        raise RuntimeError

    world.authorization = broken
    await world.make(tool_call())
    assert world.dispatched == [] and world.log.last()["reason"] == "DecisionFailed"


@pytest.mark.requirement("A23")
async def test_a_known_secret_in_a_result_is_replaced() -> None:
    world = World()
    need_secret(world)
    world.secrets = {("tickets", "token"): SECRET, ("tickets", "allowed-hosts"): "8.8.8.8:443"}

    async def echo() -> Outcome:
        return Outcome(result={"headers": [f"Bearer {SECRET}"], f"key-{SECRET}": 1})

    world.answer = echo
    await world.make(tool_call())
    assert world.log.last()["result"] == {"headers": [f"Bearer {REDACTED}"], f"key-{REDACTED}": 1}


ODD = 'canary/"9f+2=x'
SPELLED = {
    "as it is": ODD,
    "in base64": base64.b64encode(ODD.encode()).decode(),
    "in base64 for URLs": base64.urlsafe_b64encode(ODD.encode()).decode(),
    "in base64 without its end": base64.b64encode(ODD.encode()).decode().rstrip("="),
    "in base64 after its scheme": base64.b64encode(f"Bearer {ODD}".encode()).decode(),
    "in base64 after eight bytes": base64.b64encode(f"Digests {ODD}, really".encode()).decode(),
    "in base64 for URLs amid others": base64.urlsafe_b64encode(f"k={ODD}&l=0".encode()).decode(),
    "in base64 after three bytes": base64.b64encode(f"my {ODD}".encode()).decode(),
    "in hex": ODD.encode().hex(),
    "in hex after its scheme": f"Bearer {ODD}".encode().hex().upper(),
    "in a URL": quote(ODD, safe=""),
    "in a path": quote(ODD),
    "in JSON": json.dumps(ODD)[1:-1],
}


@pytest.mark.requirement("A22")
@pytest.mark.parametrize("spelling", SPELLED.values(), ids=SPELLED)
async def test_no_spelling_of_a_secret_gets_into_the_journal_by_a_result_or_an_error(
    spelling: str, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    need_secret(world)
    world.secrets = {("tickets", "token"): ODD, ("tickets", "allowed-hosts"): "8.8.8.8:443"}

    async def echo() -> Outcome:
        said = CallError("ToolError", "ToolError", f"the key {spelling} is wrong")
        return Outcome(result={"text": f"it was {spelling}!", spelling: [spelling]}, error=said)

    world.answer = echo
    with caplog.at_level(logging.DEBUG):
        await world.make(tool_call())
    kept = json.dumps([entry.data for entry in world.log.entries])
    assert REDACTED in kept and "is wrong" in kept
    assert spelling not in kept and ODD not in kept
    assert spelling not in caplog.text and ODD not in caplog.text
    assert ODD not in world.metrics.expose().decode()


@pytest.mark.parametrize(
    ("deadline_ms", "tool", "expected"),
    [
        (0, {}, 60.0),
        (0, {"limits": {"timeoutSeconds": 5}}, 5.0),
        (START_MS + 2500, {"limits": {"timeoutSeconds": 5}}, 2.5),
        (DEADLINE_MS + 99_000, {"limits": {"timeoutSeconds": 3600}}, 3600.0),
    ],
)
async def test_a_call_gets_the_least_of_its_bounds(deadline_ms: int, tool: dict[str, Any], expected: float) -> None:
    world = World(spec=tool)
    await world.make(tool_call(deadline_ms=deadline_ms))
    assert world.arguments["timeout_seconds"] == expected


async def test_a_call_whose_time_is_over_is_a_timeout_and_never_leaves() -> None:
    world = World()
    world.clock.ms += 10
    await world.make(tool_call(deadline_ms=START_MS + 5))
    assert world.dispatched == [] and world.log.last()["error"]["class"] == "Timeout"


@pytest.mark.parametrize(("function", "error_class"), [("search", "Internal"), ("append", "OutcomeUnknown")])
async def test_an_answer_that_cannot_be_written_fails_its_call_and_no_run(function: str, error_class: str) -> None:
    async def half_a_character() -> Outcome:
        return Outcome(result={"text": "\ud800"})

    world = World()
    world.answer = half_a_character
    await world.make(tool_call(function))
    said = world.log.entries[-1]
    assert (said.kind, said.data["status"]) == (EntryKind.CALL_OUTCOME, "Failed")
    assert said.data["error"]["class"] == error_class and "result" not in said.data
