"""What containers call: who may speak, that every request is a call of the gate, once, and what they hear."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.engine.gatewayworld import ACCOUNT, ADDRESS, HELLO, GatewayWorld

from fairlead.api.policy import Policy
from fairlead.engine.pods import calling
from fairlead.errors import StoreError
from fairlead.flow.calls import CallError, Outcome
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.labels import TRUSTED

CREATED = Outcome({"id": 7})


def _with(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.engine.pods.runner._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("fairlead.engine.pods.runner._LONGEST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(calling, "ARRIVAL_SECONDS", 0.05)


@pytest.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    world = GatewayWorld()
    await world.start()
    yield world
    assert world.running is not None
    world.running.cancel()
    await asyncio.gather(world.running, return_exceptions=True)


class TestWhoMaySpeak:
    @pytest.mark.requirement("A06")
    @pytest.mark.parametrize("token", ["", "Bearer", "Bearer nothing", "Basic x", f"Bearer {ACCOUNT}"])
    async def test_nobody_hears_anything_but_that(self, world: GatewayWorld, token: str) -> None:
        for path in ("/v1/chat/completions", "/mcp/tickets", "/v1/models", "/nothing"):
            answer = await world.send(path, HELLO, token=token)
            assert (answer.status_code, answer.text) == (401, '{"error":"Unauthenticated"}')
        assert world.dispatched == [] and world.log.kinds() == ["CallIntent", "PodStarted"]

    @pytest.mark.requirement("A09")
    @pytest.mark.parametrize(
        ("token", "address"),
        [
            pytest.param(f"Bearer {ACCOUNT} pod-2", ADDRESS, id="a pod that is not under way"),
            pytest.param(f"Bearer {ACCOUNT} pod-1", "10.0.0.8", id="from elsewhere"),
            pytest.param("Bearer system:serviceaccount:team-a:other pod-1", ADDRESS, id="another account"),
            pytest.param("Bearer system:serviceaccount:team-b:triage pod-1", ADDRESS, id="another namespace"),
        ],
    )
    async def test_a_pod_that_is_not_the_attempts_is_stale(self, world: GatewayWorld, token: str, address: str) -> None:
        answer = await world.send("/v1/chat/completions", HELLO, token=token, address=address)
        assert (answer.status_code, answer.text) == (403, '{"error":"StaleAttempt"}')
        assert world.dispatched == []

    @pytest.mark.requirement("A09")
    async def test_a_pod_that_ends_or_has_ended_is_stale(self, world: GatewayWorld) -> None:
        world.the_pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
        del world.the_pod["metadata"]["deletionTimestamp"]
        await world.end()
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
        assert world.dispatched == []

    async def test_one_whose_run_is_not_taken_over_yet_is_waited_for(self, world: GatewayWorld) -> None:
        known: list[Any] = [world.log]
        taken, world.calling._pods = world.calling._pods, {}
        world.calling._open_runs = lambda: known
        asking = asyncio.create_task(world.send("/v1/chat/completions", HELLO))
        await asyncio.sleep(0.15)
        assert not asking.done(), "the journal says that its call is open"
        async with world.calling._arrived:
            world.calling._pods = taken
            world.calling._arrived.notify_all()
        assert (await asking).status_code == 200
        known[:] = [None]
        asking = asyncio.create_task(world.send("/v1/models", method="GET", token=f"Bearer {ACCOUNT} pod-2"))
        await asyncio.sleep(0.15)
        assert not asking.done(), "a run whose journal is not in memory may be its"
        known.clear()
        assert (await asking).status_code == 403

    async def test_an_address_that_was_not_there_yet_is_looked_up(self, world: GatewayWorld) -> None:
        world.calling._pods["pod-1"].pod = {"metadata": {}, "status": {}}
        assert (await world.send("/v1/models", method="GET")).status_code == 200

    async def test_whoever_cannot_be_verified_now_may_come_again(self, world: GatewayWorld) -> None:
        assert (await world.send("/v1/chat/completions", HELLO, token="Bearer away")).status_code == 503


class TestModels:
    async def test_a_chat_is_a_call_of_the_gate(self, world: GatewayWorld) -> None:
        answer = (await world.send("/v1/chat/completions", HELLO)).json()
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hi."}
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"] == {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
        assert world.log.kinds() == ["CallIntent", "PodStarted", "CallIntent", "CallOutcome"]
        assert world.log.state.usage.model_calls == 1 and world.recorded(1).effect == "Read"

    async def test_tools_schemas_and_parameters_reach_the_model(self, world: GatewayWorld) -> None:
        function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
        call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        body = HELLO | {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "done"},
            ],
            "tools": [{"type": "function", "function": function}],
            "response_format": {"type": "json_schema", "json_schema": {"name": "o", "schema": {"type": "object"}}},
            "max_completion_tokens": 50,
            "temperature": 0.5,
            "seed": 3,
            "n": 1,
        }
        world.answers["small"] = Outcome({"content": "", "toolCalls": [{"id": "c2", "name": "f", "arguments": "{}"}]})
        answer = (await world.send("/v1/chat/completions", body)).json()
        assert world.dispatched[0].request == {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "name": "f", "arguments": "{}"}]},
                {"role": "tool", "content": "done", "tool_call_id": "c1"},
            ],
            "parameters": {"maxOutputTokens": 50, "temperature": "0.5", "seed": 3},
            "tools": [{"name": "f", "description": "d", "schema": {"type": "object"}}],
            "schema": {"type": "object"},
        }
        assert answer["choices"][0]["message"]["tool_calls"] == [call | {"id": "c2"}]
        assert answer["choices"][0]["finish_reason"] == "tool_calls"

    @pytest.mark.requirement("A61")
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"tools": [{"type": "web_search"}]}, "tools"),
            ({"tools": [{"type": "mcp", "server_url": "http://evil.example"}]}, "tools"),
            ({"web_search_options": {}}, "web_search_options"),
            ({"previous_response_id": "r"}, "previous_response_id"),
            ({"store": True}, "store"),
            ({"n": 2}, "n"),
            ({"logprobs": True}, "logprobs"),
            (_with({"type": "image_url", "image_url": {"url": "http://evil.example/x.png"}}), "messages"),
            (_with({"type": "file", "file": {"file_id": "f"}}), "messages"),
            ({"messages": []}, "messages"),
            ({"model": 7}, "model"),
        ],
    )
    async def test_what_is_not_on_the_list_is_refused_by_name(
        self, world: GatewayWorld, change: dict[str, Any], named: str
    ) -> None:
        answer = await world.send("/v1/chat/completions", HELLO | change)
        assert answer.status_code == 400 and named in answer.json()["message"]
        assert world.dispatched == [] and world.log.kinds() == ["CallIntent", "PodStarted"]

    async def test_a_stream_tells_the_same_in_events(self, world: GatewayWorld) -> None:
        body = HELLO | {"stream": True, "stream_options": {"include_usage": True}}
        answer = await world.send("/v1/chat/completions", body)
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        said, end, used = [json.loads(event) for event in events]
        assert said["choices"][0]["delta"]["content"] == "Hi." and end["choices"][0]["finish_reason"] == "stop"
        assert used["usage"]["total_tokens"] == 11 and last == "[DONE]"

    async def test_embeddings_come_as_numbers_or_packed(self, world: GatewayWorld) -> None:
        world.answers["embedder"] = Outcome({"vectors": [[0.5, 1.0], [0.25, 2.0]]}, input_tokens=4)
        body = {"model": "embedder", "input": ["a", "b"]}
        plain = (await world.send("/v1/embeddings", body)).json()
        assert [row["embedding"] for row in plain["data"]] == [[0.5, 1.0], [0.25, 2.0]]
        packed = (await world.send("/v1/embeddings", body | {"encoding_format": "base64"})).json()
        assert struct.unpack("<2f", base64.b64decode(packed["data"][1]["embedding"])) == (0.25, 2.0)
        assert [call.request for call in world.dispatched] == [{"texts": ["a", "b"]}] * 2

    async def test_the_models_that_it_may_call_are_listed(self, world: GatewayWorld) -> None:
        listed = (await world.send("/v1/models", method="GET")).json()["data"]
        assert [one["id"] for one in listed] == ["small", "embedder"]

    async def test_a_model_that_the_step_does_not_name_is_not_permitted(self, world: GatewayWorld) -> None:
        world.models["other"] = world.models["small"]
        answer = await world.send("/v1/chat/completions", HELLO | {"model": "other"})
        assert answer.status_code == 403 and answer.json()["error"]["message"] == "not permitted"
        assert world.log.last()["message"] == "the step does not offer Model other" and world.dispatched == []

    @pytest.mark.parametrize(
        ("error_class", "status"),
        [("Timeout", 504), ("RateLimited", 429), ("Unavailable", 502), ("ModelError", 502), ("Internal", 500)],
    )
    async def test_a_failure_is_told_with_its_reason(self, world: GatewayWorld, error_class: str, status: int) -> None:
        world.answers["small"] = Outcome(error=CallError(error_class, "Because", "it did not work"))
        answer = await world.send("/v1/chat/completions", HELLO)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "Because" and answer.json()["error"]["message"] == "it did not work"


class TestTools:
    async def test_a_function_is_called_and_its_label_leads_to_the_next_call(self, world: GatewayWorld) -> None:
        world.log.state.accepted = world.log.state.accepted and _labelled(world)
        result = await world.tool("search", query="refund")
        assert result["structuredContent"] == {"n": 1} and not result["isError"]
        assert world.dispatched[0].request == {"arguments": {"query": "refund"}}
        await world.send("/v1/chat/completions", HELLO)
        assert str(world.dispatched[0].label) == "Trusted/Public"
        assert str(world.dispatched[1].label) == "Untrusted/Internal" == str(world.context)

    @pytest.mark.requirement("A05")
    async def test_all_that_may_not_be_called_sounds_alike(self, world: GatewayWorld) -> None:
        world.policies["r"] = _rules({"name": "no", "when": "call.function == 'append'"})
        told = [
            await world.tool("append"),
            await world.tool("unknown"),
            await world.tool("search", tool="secrets"),
        ]
        assert told[0] == told[1] == told[2]
        assert told[0]["content"] == [{"type": "text", "text": "not permitted"}] and told[0]["isError"]
        assert world.dispatched == [] and world.log.state.denials == 3

    async def test_arguments_that_do_not_fit_are_told_and_no_call_is_made(self, world: GatewayWorld) -> None:
        told = await world.tool("search", query=7)
        assert told["isError"] and told["content"][0]["text"].startswith("The call was not made: ")
        assert world.log.kinds() == ["CallIntent", "PodStarted"]

    async def test_a_rule_that_asks_people_denies(self, world: GatewayWorld) -> None:
        approval = {"from": {"groups": ["oncall"]}}
        world.policies["r"] = _rules({"name": "ask", "when": "true", "then": "RequireApproval", "approval": approval})
        assert (await world.tool("append"))["isError"]
        assert world.log.last()["reason"] == "PolicyDenied" and "cannot wait" in world.log.last()["message"]
        assert world.log.state.approvals == {}

    async def test_a_program_may_ask_again_but_not_more_often_than_its_step_says(self) -> None:
        world = GatewayWorld(maxCalls=4)
        await world.start()
        for _ in range(4):
            assert not (await world.tool("search", query="same"))["isError"]
        assert (await world.tool("search", query="same"))["isError"]
        assert world.log.last()["reason"] == "BudgetExceeded" and "container.maxCalls: 4" in world.log.last()["message"]
        entries = len(world.log.entries)
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 429
        assert len(world.log.entries) == entries, "what is refused after that leaves no record"
        await world.end()


class TestOnce:
    @pytest.mark.requirement("G2")
    async def test_a_request_that_comes_again_is_the_same_call(self, world: GatewayWorld) -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def slowly() -> Outcome:
            asked.set()
            await answered.wait()
            return CREATED

        world.answer = slowly
        first = asyncio.create_task(world.tool("append", number=5))
        await asked.wait()
        again = asyncio.create_task(world.tool("append", number=5))
        await asyncio.sleep(0.01)
        answered.set()
        assert await first == await again == await world.tool("append", number=5)
        assert len(world.dispatched) == 1

    async def test_a_sender_that_went_away_does_not_cut_off_its_call(self, world: GatewayWorld) -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def slowly() -> Outcome:
            asked.set()
            await answered.wait()
            return CREATED

        world.answer = slowly
        first = asyncio.create_task(world.tool("append", number=5))
        await asked.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        answered.set()
        assert (await world.tool("append", number=5))["structuredContent"] == {"id": 7}
        assert len(world.dispatched) == 1

    @pytest.mark.requirement("A50")
    async def test_without_a_record_nothing_is_called_until_there_is_room_for_one(self, world: GatewayWorld) -> None:
        async def full() -> None:
            raise StoreError("no space left")

        world.log.on_durable = full
        said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search", "arguments": {}}}
        assert (await world.send("/mcp/tickets", said, number=5)).status_code == 503
        assert world.dispatched == []
        world.log.on_durable = None
        assert not (await world.tool("search", number=5))["isError"]

    async def test_a_request_that_the_engines_end_cuts_off_is_to_be_sent_again(self, world: GatewayWorld) -> None:
        never = asyncio.Event()

        async def slowly() -> Outcome:
            await never.wait()
            return CREATED

        world.answer = slowly
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
        while not world.dispatched:
            await asyncio.sleep(0.001)
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert sent[0]["status"] == 503
        never.set()

    async def test_a_pod_whose_engine_ends_is_told_to_come_again(self, world: GatewayWorld) -> None:
        world.calling._open_runs = lambda: [world.log]  # type: ignore[list-item]
        world.calling._pods.clear()
        world.log.draining = True  # type: ignore[attr-defined]
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 503
        world.log.draining = False  # type: ignore[attr-defined]

    async def test_a_run_that_is_never_taken_over_is_no_stale_attempt(
        self, world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calling, "TAKEOVER_SECONDS", 0.0)
        world.calling._open_runs = lambda: [world.log]  # type: ignore[list-item]
        world.calling._pods.clear()
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 503

    async def test_an_engine_that_ends_takes_nothing_and_the_next_one_does(self, world: GatewayWorld) -> None:
        append, world.log.append = world.log.append, lambda *drafts: None  # type: ignore[method-assign]
        world.log.draining = True  # type: ignore[attr-defined]
        assert (await world.send("/v1/chat/completions", HELLO, number=5)).status_code == 503
        assert world.dispatched == []
        world.log.append, world.log.draining = append, False  # type: ignore[attr-defined, method-assign]

    async def test_another_request_under_a_known_number_is_refused(self, world: GatewayWorld) -> None:
        await world.tool("append", number=5)
        said = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create", "arguments": {}}}
        assert (await world.send("/mcp/tickets", said, number=5)).status_code == 409
        assert len(world.dispatched) == 1

    async def test_a_pod_that_asks_for_very_much_at_once_waits(self, world: GatewayWorld) -> None:
        answered = asyncio.Event()

        async def slowly() -> Outcome:
            await answered.wait()
            return CREATED

        world.answer = slowly
        waiting = [asyncio.create_task(world.tool("search", number=number)) for number in range(1, 20)]
        await asyncio.sleep(0.05)
        assert len(world.dispatched) == calling.AT_ONCE
        answered.set()
        await asyncio.gather(*waiting)
        assert len(world.dispatched) == len(waiting)

    async def test_a_number_is_needed(self, world: GatewayWorld) -> None:
        for said in ("", "0", "-1", "x", "1.5", "9999999999"):
            answer = await world.send("/v1/chat/completions", HELLO, **{"x-fairlead-call": said})
            assert answer.status_code == 400, said

    @pytest.mark.requirement("G2")
    async def test_keys_go_by_the_request_so_that_another_attempt_may_ask_in_another_order(
        self, world: GatewayWorld
    ) -> None:
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
    async def test_what_was_denied_or_failed_leaves_its_key_to_the_next(self, world: GatewayWorld) -> None:
        world.policies["r"] = _rules({"name": "no", "when": "call.function == 'create'"})
        assert (await world.tool("create"))["isError"]
        del world.policies["r"]
        keys = []
        for outcome in (Outcome(error=CallError("Unavailable", "Away", "away")), CREATED, CREATED):
            world.answers["create"] = outcome
            await world.tool("create")
            keys.append(world.arguments["idempotency_key"])
        assert keys[0] == keys[1] != keys[2]

    @pytest.mark.requirement("G3")
    async def test_a_container_ends_when_all_that_it_asked_for_is_answered(self, world: GatewayWorld) -> None:
        asked, answered = asyncio.Event(), asyncio.Event()

        async def slowly() -> Outcome:
            asked.set()
            await answered.wait()
            return CREATED

        world.answer = slowly
        first = asyncio.create_task(world.tool("append"))
        await asked.wait()
        ending = asyncio.create_task(world.end())
        await asyncio.sleep(0.05)
        assert not ending.done() and not world.recorded(1).settled
        answered.set()
        await ending
        assert world.log.entries[-2].data["index"] == "1.0.0" and world.log.entries[-1].data["index"] == "0.0.0"
        await asyncio.gather(first, return_exceptions=True)

    async def test_what_was_open_when_the_engine_died_and_is_not_asked_for_again_is_settled(
        self, world: GatewayWorld
    ) -> None:
        at = world.container.id
        for number, effect, key in ((7, "Read", {}), (8, "Reversible", {"key": "k"})):
            data = {"index": f"{number}.0.0", "kind": "Tool", "target": "tickets", "function": "f", "digest": "d"}
            world.log.append(Draft(EntryKind.CALL_INTENT, at.path, at.attempt, data | {"effect": effect} | key))
        await world.end()
        ends = {entry.data["index"]: entry.data["error"]["class"] for entry in world.log.entries[-3:-1]}
        assert ends == {"7.0.0": "Cancelled", "8.0.0": "OutcomeUnknown"}
        assert world.log.state.open_calls == {}

    async def test_a_cancelled_container_takes_back_reads_and_leaves_effects_their_time(
        self, world: GatewayWorld
    ) -> None:
        begun, answered = [asyncio.Event(), asyncio.Event()], asyncio.Event()

        async def slowly() -> Outcome:
            begun[len(world.dispatched) - 1].set()
            await answered.wait()
            return CREATED

        world.answer = slowly
        waiting = [asyncio.create_task(world.tool("search")), asyncio.create_task(world.tool("append"))]
        await asyncio.gather(*(event.wait() for event in begun))
        assert world.running is not None
        world.running.cancel()
        await asyncio.gather(world.running, return_exceptions=True)
        assert world.recorded(1).error is not None and world.recorded(1).error.error_class == "Cancelled"
        assert not world.recorded(2).settled
        answered.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert world.recorded(2).result == {"id": 7}


def _rules(*calls: dict[str, Any]) -> Policy:
    return Policy.model_validate({"metadata": {"name": "r"}, "spec": {"rules": {"calls": [*calls]}}})


def _labelled(world: GatewayWorld) -> Any:
    assert world.log.state.accepted is not None
    return replace(world.log.state.accepted, label=TRUSTED)


def _attempt(world: GatewayWorld, attempt: int) -> Any:
    return replace(world.container, id=replace(world.container.id, attempt=attempt))
