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
from tests.unit.engine.gatewayworld import ACCOUNT, ADDRESS, HELLO, GatewayWorld, rules, under_way

from fairlead.flow.calls import CallError, Outcome
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.labels import TRUSTED

CREATED = Outcome({"id": 7})


def _with(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.fixture
async def world() -> AsyncIterator[GatewayWorld]:
    async with under_way() as world:
        yield world


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
        world.the_pod["metadata"]["deletionTimestamp"] = "2126-01-01T00:00:00Z"
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
        del world.the_pod["metadata"]["deletionTimestamp"]
        await world.end()
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 403
        assert world.dispatched == []

    @pytest.mark.requirement("F11")
    async def test_a_pod_that_goes_on_where_nobody_sees_it_is_stale_and_the_next_attempts_is_not(
        self, world: GatewayWorld
    ) -> None:
        world.the_pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        assert world.running is not None
        await world.running
        assert world.log.last()["error"]["reason"] == "NodeLost"
        world.log.append(Draft(EntryKind.STEP_STARTED, world.container.id.path, 2))
        world.container = replace(world.container, id=replace(world.container.id, attempt=2))
        world.cluster.pods.clear()
        await world.start(pods=2)
        answer = await world.send("/v1/chat/completions", HELLO, token=f"Bearer {ACCOUNT} pod-1")
        assert (answer.status_code, answer.text) == (403, '{"error":"StaleAttempt"}')
        assert world.dispatched == []
        assert (await world.send("/v1/chat/completions", HELLO)).status_code == 200

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
        world.policies["r"] = rules({"name": "no", "when": "call.function == 'append'"})
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
        world.policies["r"] = rules({"name": "ask", "when": "true", "then": "RequireApproval", "approval": approval})
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


def _labelled(world: GatewayWorld) -> Any:
    assert world.log.state.accepted is not None
    return replace(world.log.state.accepted, label=TRUSTED)
