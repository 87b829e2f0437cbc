"""Models: what is sent, what is read, and what a failure is called."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from examples.servers import scripted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.servers.serving import served
from tests.unit.engine.declared import Declared, model

from fairlead.engine import models
from fairlead.engine.dialer import Dialer
from fairlead.engine.models import ModelCaller, openai
from fairlead.engine.outcomes import LONGEST_RETRY_AFTER_MS, retry_after_ms
from fairlead.errors import StepError
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.journal import Path

ID = CallId(Path("answer"), 1, CallIndex())
TOKEN = "tok-0123456789"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
HELLO = [{"role": "user", "content": "Hello"}]


def chat(messages: list[dict[str, Any]] | None = None, **more: Any) -> Call:
    return Call(ID, CallKind.CHAT, "small", request={"messages": messages or HELLO, "parameters": {}} | more)


def embed(*texts: str) -> Call:
    return Call(ID, CallKind.EMBED, "small", request={"texts": list(texts)})


def sent(call: Call, **spec: Any) -> dict[str, Any]:
    return dict(json.loads(openai.request(call, model("https://models.example.com/v1", **spec))[1]))


@asynccontextmanager
async def calling(url: str, **spec: Any) -> AsyncIterator[tuple[ModelCaller, Declared]]:
    dialer = Dialer()
    resources = Declared(model(url, **spec), own=True)
    try:
        yield ModelCaller(dialer, resources), resources
    finally:
        await dialer.close()


async def ask(url: str, call: Call, *, timeout_seconds: float = 5, **spec: Any) -> Outcome:
    async with calling(url, **spec) as (caller, resources):
        return await caller.call("small", resources.models["small"], call, timeout_seconds)


def answering(status: int, body: bytes | str, **headers: str) -> Starlette:
    async def answer(_: Request) -> Response:
        return Response(body, status, {name.replace("_", "-"): value for name, value in headers.items()})

    return Starlette(routes=[Route("/v1/{path:path}", answer, methods=["POST"])])


async def test_a_conversation_with_tools_goes_there_and_back() -> None:
    script = (
        "turns: [{when: {toolResults: 0}, toolCalls: [{name: search, arguments: {query: refund}}]}, {content: Done.}]"
    )
    async with served(scripted.create_app(scripted.parse(script))) as url:
        tools = [{"name": "search", "description": "Finds", "schema": SCHEMA}]
        first = await ask(f"{url}/v1", chat(tools=tools))
        [asked] = first.result["toolCalls"]
        assert (asked["name"], json.loads(asked["arguments"])) == ("search", {"query": "refund"})
        assert first.input_tokens > 0 and first.error is None

        said = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [asked]}]
        last = await ask(f"{url}/v1", chat([*said, {"role": "tool", "tool_call_id": asked["id"], "content": "[]"}]))
        assert last.result == {"content": "Done.", "toolCalls": []}


async def test_texts_are_embedded_in_their_order() -> None:
    async with served(scripted.create_app(scripted.parse("turns: []"))) as url:
        outcome = await ask(f"{url}/v1", embed("one", "two", "one"), api="OpenAIEmbeddings")
    first, second, third = outcome.result["vectors"]
    assert first == third != second and all(isinstance(number, float) for number in first)


async def test_an_answer_that_is_too_large_when_it_is_written_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_ANSWER_BYTES", 100)
    async with served(answering(200, '{"data": [{"embedding": [1e15, 1e15, 1e15, 1e15, 1e15, 1e15]}]}')) as url:
        outcome = await ask(f"{url}/v1", embed("one"), api="OpenAIEmbeddings")
    assert outcome.error is not None and (outcome.error.error_class, outcome.error.reason) == ("ModelError", "TooLarge")
    assert outcome.result is None


async def test_the_credential_goes_into_its_header_and_nowhere_else() -> None:
    seen: dict[str, Any] = {}

    async def answer(request: Request) -> Response:
        seen.update(headers=dict(request.headers), body=(await request.body()).decode(), url=str(request.url))
        return Response('{"choices": [{"message": {"content": "hi"}}]}', media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])
    credential = {"secretRef": {"name": "openai", "key": "apiKey"}}
    async with served(app) as url:
        host = url.removeprefix("http://")
        async with calling(f"{url}/v1", credential=credential) as (caller, resources):
            resources._own, resources.engine = False, Declared(private=(host,)).engine
            resources.secrets = {("openai", "apiKey"): TOKEN, ("openai", "allowed-hosts"): url}
            outcome = await caller.call("small", resources.models["small"], chat(), 5)
    assert outcome.error is None and outcome.input_tokens == 0, "usage may be missing"
    assert seen["headers"].pop("authorization") == f"Bearer {TOKEN}"
    assert TOKEN not in json.dumps(seen)


@pytest.mark.requirement("A61")
def test_only_allowed_fields_are_sent() -> None:
    call = chat(
        [{"role": "user", "content": "Hello", "name": "x", "cache_control": {}, "audio": {}}],
        tools=[{"name": "search", "description": "d", "schema": SCHEMA, "type": "web_search"}],
        previous_response_id="r",
        parameters={"seed": 7, "temperature": "0.2", "maxOutputTokens": 100, "store": True},
    )
    assert sent(call) == {
        "model": "small",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 100,
        "stream": False,
        "seed": 7,
        "temperature": 0.2,
        "tools": [{"type": "function", "function": {"name": "search", "description": "d", "parameters": SCHEMA}}],
    }


@pytest.mark.parametrize(
    ("asked", "limit", "expected"), [(None, None, 4096), (100, 50, 50), (None, 50, 50), (20, 50, 20)]
)
def test_the_models_limit_bounds_the_answer(asked: int | None, limit: int | None, expected: int) -> None:
    spec = {"limits": {"maxOutputTokens": limit}} if limit else {}
    assert sent(chat(parameters={"maxOutputTokens": asked}), **spec)["max_tokens"] == expected


def test_a_schema_is_a_response_format_where_the_model_obeys_it() -> None:
    body = sent(chat(schema=SCHEMA), capabilities=["StructuredOutput"])
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "output", "schema": SCHEMA}}
    assert body["messages"] == HELLO


@pytest.mark.parametrize("instructions", [[], [{"role": "system", "content": "Be brief."}]])
def test_a_schema_is_put_in_words_where_it_does_not(instructions: list[dict[str, Any]]) -> None:
    body = sent(chat([*instructions, *HELLO], schema=SCHEMA))
    assert "response_format" not in body and [m["role"] for m in body["messages"]] == ["system", "user"]
    told = body["messages"][0]["content"]
    assert (
        told.startswith("Be brief." if instructions else "Answer") and json.dumps(SCHEMA, separators=(",", ":")) in told
    )


GOOD = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
ANSWERS = [
    (400, '{"error": {"code": "context_length_exceeded", "message": "your prompt was ..."}}', "ModelError"),
    (401, "no", "ModelError"),
    (404, "no", "ModelError"),
    (408, "", "Timeout"),
    (429, "", "RateLimited"),
    (500, "", "Unavailable"),
    (503, "", "Unavailable"),
    (529, "", "Unavailable"),
    (504, "", "Timeout"),
    (302, "", "ModelError"),
    (200, "garbage", "ModelError"),
    (200, "[]", "ModelError"),
    (200, "{}", "ModelError"),
    (200, '{"choices": []}', "ModelError"),
    (200, '{"choices": [{"message": {"content": ""}}]}', "ModelError"),
    (200, '{"choices": [{"message": {"content": "half"}, "finish_reason": "length"}]}', "ModelError"),
    (200, '{"choices": [{"message": {"tool_calls": [{"id": "x"}]}}]}', "ModelError"),
    (200, json.dumps(GOOD)[:-5], "ModelError"),
]


@pytest.mark.requirement("F26")
@pytest.mark.requirement("F27")
@pytest.mark.parametrize(("status", "body", "expected"), ANSWERS)
async def test_what_is_no_whole_answer_is_an_error_of_its_class(status: int, body: str, expected: str) -> None:
    async with served(answering(status, body)) as url:
        outcome = await ask(f"{url}/v1", chat())
    assert outcome.error is not None and outcome.result is None
    assert outcome.error.error_class == expected
    assert "prompt" not in outcome.error.message and "half" not in outcome.error.message


async def test_the_tokens_of_a_cut_answer_are_charged() -> None:
    body = {
        "choices": [{"message": {"content": "h"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
    }
    async with served(answering(200, json.dumps(body))) as url:
        outcome = await ask(f"{url}/v1", chat())
    assert outcome.error is not None and (outcome.input_tokens, outcome.output_tokens) == (9, 4)


@pytest.mark.requirement("F25")
@pytest.mark.parametrize(
    ("headers", "expected_ms"),
    [
        ({"Retry-After": "3"}, 3000),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:05 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5000),
        ({"Retry-After": "Wed, 21 Oct 2026 07:27:00 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:05 GMT"}, 0),
        ({"Retry-After": "999999999"}, LONGEST_RETRY_AFTER_MS),
        ({"Retry-After": "9" * 400}, LONGEST_RETRY_AFTER_MS),
        ({"Retry-After": "9" * 8000}, LONGEST_RETRY_AFTER_MS),
        ({"Retry-After": f"Wed, 21 Oct {'9' * 40} 07:28:05 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"Retry-After": "Wed, 21 Oct 9999 07:28:05 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 3_600_000),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:05 -0000", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
    ],
)
def test_a_wish_to_be_asked_later_is_understood(headers: dict[str, str], expected_ms: int) -> None:
    assert retry_after_ms(SimpleNamespace(headers=headers)) == expected_ms  # type: ignore[arg-type]  # only headers


@pytest.mark.requirement("F25")
async def test_a_busy_model_says_when_to_ask_again() -> None:
    async with served(answering(429, "", Retry_After="3")) as url:
        outcome = await ask(f"{url}/v1", chat())
    assert outcome.error is not None and outcome.error.retry_after_ms == 3000


@pytest.mark.requirement("F27")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [("{body: truncated}", "ModelError"), ("{body: garbage}", "ModelError"), ("{delaySeconds: 30}", "Timeout")],
)
async def test_a_model_that_breaks_off_or_is_late(fault: str, expected: str) -> None:
    script = f"turns: [{{content: A long answer., fault: {fault}}}]"
    async with served(scripted.create_app(scripted.parse(script))) as url:
        outcome = await ask(f"{url}/v1", chat(), timeout_seconds=0.3 if expected == "Timeout" else 5)
    assert outcome.error is not None and outcome.error.error_class == expected and outcome.result is None


async def test_a_model_that_is_not_there_is_unavailable() -> None:
    async with served(answering(200, "")) as url:
        pass
    outcome = await ask(f"{url}/v1", chat())
    assert outcome.error is not None and outcome.error.error_class == "Unavailable"


async def test_a_model_at_a_private_address_is_refused() -> None:
    async with served(answering(200, json.dumps(GOOD))) as url, calling(f"{url}/v1") as (caller, resources):
        resources._own = False
        outcome = await caller.call("small", resources.models["small"], chat(), 5)
    assert outcome.error is not None and (outcome.error.error_class, outcome.error.reason) == ("Denied", "EgressDenied")


@pytest.mark.parametrize(
    "body",
    [
        {"data": []},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0]}, {"embedding": [1.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": []}]},
        {"data": [{"embedding": [1.0]}, {"embedding": "AAAA"}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [None]}]},
        {"data": [{"embedding": [1.0], "index": []}, {"embedding": [1.0]}]},
        {"data": "x"},
    ],
)
def test_embeddings_that_are_not_one_vector_for_each_text_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(StepError):
        openai.read_embeddings(json.dumps(body).encode(), embed("one", "two"), 0)


def test_embeddings_are_sorted_by_their_index() -> None:
    body = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}], "usage": {"prompt_tokens": 3}}
    outcome = openai.read_embeddings(json.dumps(body).encode(), embed("one", "two"), 0)
    assert outcome.result == {"vectors": [[1.0], [2.0]]} and outcome.input_tokens == 3


def test_parts_and_parsed_arguments_are_read_too() -> None:
    message = {
        "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}, {"type": "image"}],
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}, {"id": "i", "function": {"name": "g"}}],
    }
    outcome = openai.read_chat(json.dumps({"choices": [{"message": message}]}).encode(), chat(), 0)
    assert outcome.result == {
        "content": "Hello",
        "toolCalls": [
            {"id": "call_0", "name": "f", "arguments": '{"a":1}'},
            {"id": "i", "name": "g", "arguments": "{}"},
        ],
    }
