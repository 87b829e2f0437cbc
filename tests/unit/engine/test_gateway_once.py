"""Every request of a container is one call, whatever is lost, cut off, ended or killed meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.engine.gatewayworld import ACCOUNT, ADDRESS, HELLO, GatewayWorld, rules, under_way

from fairlead.engine.pods import calling
from fairlead.errors import StoreError
from fairlead.flow.calls import Call, CallError, Outcome
from fairlead.flow.journal import Draft, EntryKind

CREATED = Outcome({"id": 7})


@pytest.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with under_way() as world:
        yield world


@pytest.mark.requirement("G2")
async def test_a_request_that_comes_again_is_the_same_call(world: GatewayWorld) -> None:
    answered = world.hold()
    first = asyncio.create_task(world.tool("append", number=5))
    await world.was_asked()
    again = asyncio.create_task(world.tool("append", number=5))
    await asyncio.sleep(0.01)
    answered.set()
    assert await first == await again == await world.tool("append", number=5)
    assert len(world.dispatched) == 1


async def test_a_sender_that_went_away_does_not_cut_off_its_call(world: GatewayWorld) -> None:
    answered = world.hold()
    first = asyncio.create_task(world.tool("append", number=5))
    await world.was_asked()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    answered.set()
    assert (await world.tool("append", number=5))["structuredContent"] == {"id": 7}
    assert len(world.dispatched) == 1


@pytest.mark.requirement("A50")
async def test_without_a_record_nothing_is_called_until_there_is_room_for_one(world: GatewayWorld) -> None:
    async def full() -> None:
        raise StoreError("no space left")

    world.log.on_durable = full
    said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {}}}
    assert (await world.send("/mcp/tickets", said, number=5)).status_code == 503
    assert world.dispatched == []
    world.log.on_durable = None
    assert not (await world.tool("search", number=5))["isError"]


@pytest.mark.parametrize("known", [True, False], ids=["at work", "not taken over yet"])
async def test_a_request_that_the_engines_end_cuts_off_is_to_be_sent_again(
    world: GatewayWorld, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:
        monkeypatch.setattr(calling, "ARRIVAL_SECONDS", 10)
        world.calling._pods.clear()
    answered = world.hold()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(HELLO).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = {
        "authorization": f"Bearer {ACCOUNT} pod-1",
        "content-type": "application/json",
        "x-fairlead-call": "1",
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (ADDRESS, 1),
        "query_string": b"",
    }
    serving = asyncio.ensure_future(world.gateway.application()(scope, receive, send))
    if known:
        await world.was_asked()
    await asyncio.sleep(0.01)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    assert sent[0]["status"] == 503
    answered.set()


async def test_a_pod_whose_engine_ends_is_told_to_come_again(world: GatewayWorld) -> None:
    world.calling._open_runs = lambda: [world.log]  # type: ignore[list-item]
    world.calling._pods.clear()
    world.log.draining = True  # type: ignore[attr-defined]
    assert (await world.send("/v1/chat/completions", HELLO)).status_code == 503
    world.log.draining = False  # type: ignore[attr-defined]


async def test_a_run_that_is_never_taken_over_is_no_stale_attempt(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "TAKEOVER_SECONDS", 0.0)
    world.calling._open_runs = lambda: [world.log]  # type: ignore[list-item]
    world.calling._pods.clear()
    assert (await world.send("/v1/chat/completions", HELLO)).status_code == 503


async def test_an_engine_that_ends_takes_nothing_and_the_next_one_does(world: GatewayWorld) -> None:
    note, world.log.note = world.log.note, lambda *drafts: None  # type: ignore[method-assign]
    world.log.draining = True  # type: ignore[attr-defined]
    assert (await world.send("/v1/chat/completions", HELLO, number=5)).status_code == 503
    assert world.dispatched == []
    world.log.note, world.log.draining = note, False  # type: ignore[attr-defined, method-assign]


async def test_another_request_under_a_known_number_is_refused(world: GatewayWorld) -> None:
    await world.tool("append", number=5)
    said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create", "arguments": {}}}
    assert (await world.send("/mcp/tickets", said, number=5)).status_code == 409
    assert len(world.dispatched) == 1


async def test_a_pod_that_asks_for_very_much_at_once_waits(world: GatewayWorld) -> None:
    answered = world.hold()
    waiting = [asyncio.create_task(world.tool("search", number=number)) for number in range(1, 20)]
    await asyncio.sleep(0.05)
    assert len(world.dispatched) == calling.AT_ONCE
    answered.set()
    await asyncio.gather(*waiting)
    assert len(world.dispatched) == len(waiting)


async def test_a_number_is_needed(world: GatewayWorld) -> None:
    for said in ("", "0", "-1", "x", "1.5", "9999999999"):
        answer = await world.send("/v1/chat/completions", HELLO, **{"x-fairlead-call": said})
        assert answer.status_code == 400, said


@pytest.mark.requirement("G2")
async def test_keys_go_by_the_request_so_that_another_attempt_may_ask_in_another_order(world: GatewayWorld) -> None:
    keys: dict[int, list[str]] = {}
    for attempt, order in ((1, ["a", "b", "a"]), (2, ["b", "a", "a"])):
        for query in order:
            await world.tool("create", query=query)
            keys.setdefault(attempt, []).append(world.arguments["idempotency_key"])
        if attempt == 1:
            await world.end(3)
            world.log.append(Draft(EntryKind.STEP_STARTED, world.container.id.path, 2))
            world.cluster.pods.clear()
            world.container = _attempt(world, 2)
            await world.start(pods=2)
    first, second = keys[1], keys[2]
    assert len({*first}) == 3 and {*first} == {*second}
    assert second == [first[1], first[0], first[2]]


@pytest.mark.requirement("G2")
async def test_what_was_denied_or_failed_leaves_its_key_to_the_next(world: GatewayWorld) -> None:
    world.policies["r"] = rules({"name": "no", "when": "call.function == 'create'"})
    assert (await world.tool("create"))["isError"]
    del world.policies["r"]
    keys = []
    for outcome in (Outcome(error=CallError("Unavailable", "Away", "away")), CREATED, CREATED):
        world.answers["create"] = outcome
        await world.tool("create")
        keys.append(world.arguments["idempotency_key"])
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.requirement("G3")
async def test_a_container_ends_when_all_that_it_asked_for_is_answered(world: GatewayWorld) -> None:
    answered = world.hold()
    first = asyncio.create_task(world.tool("append"))
    await world.was_asked()
    ending = asyncio.create_task(world.end())
    await asyncio.sleep(0.05)
    assert not ending.done() and not world.recorded(1).settled
    answered.set()
    await ending
    assert world.log.entries[-2].data["index"] == "1.0.0" and world.log.entries[-1].data["index"] == "0.0.0"
    await asyncio.gather(first, return_exceptions=True)


async def test_what_was_open_when_the_engine_died_and_is_not_asked_for_again_is_settled(world: GatewayWorld) -> None:
    at = world.container.id
    for number, effect, key in ((7, "Read", {}), (8, "Reversible", {"key": "k"})):
        data = {"index": f"{number}.0.0", "kind": "Tool", "target": "tickets", "function": "f", "digest": "d"}
        world.log.append(Draft(EntryKind.CALL_INTENT, at.path, at.attempt, data | {"effect": effect} | key))
    await world.end()
    ends = {entry.data["index"]: entry.data["error"]["class"] for entry in world.log.entries[-3:-1]}
    assert ends == {"7.0.0": "Cancelled", "8.0.0": "OutcomeUnknown"}
    assert world.log.state.open_calls == {}


async def test_a_cancelled_container_takes_back_reads_and_leaves_effects_their_time(world: GatewayWorld) -> None:
    answered = world.hold()
    waiting = [asyncio.create_task(world.tool("search")), asyncio.create_task(world.tool("append"))]
    await world.was_asked(2)
    assert world.running is not None
    world.running.cancel()
    await asyncio.gather(world.running, return_exceptions=True)
    assert world.recorded(1).error is not None and world.recorded(1).error.error_class == "Cancelled"
    assert not world.recorded(2).settled
    answered.set()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert world.recorded(2).result == {"id": 7}


def _attempt(world: GatewayWorld, attempt: int) -> Call:
    return replace(world.container, id=replace(world.container.id, attempt=attempt))
