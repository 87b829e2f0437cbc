"""The scripted model answers as its script says, wrongly where it says so, and remembers what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import isclose
from typing import Any

import httpx
import pytest
from examples.servers import scripted
from tests.servers.serving import served


@asynccontextmanager
async def model(script: str) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served(scripted.create_app(scripted.parse(script))) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield client


def chat(*messages: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": role, "content": text} for role, text in messages], **more}


CONVERSATION = """
turns:
  - when: {contains: refund, toolResults: 0}
    toolCalls: [{name: search, arguments: {query: refund}}]
  - when: {toolResults: 1}
    content: {reply: The second charge is refunded.}
    usage: {promptTokens: 40, completionTokens: 8}
  - when: {model: small}
    content: from the small one
  - content: from another
"""


async def test_a_script_answers_by_last_user_text_tool_results_and_model() -> None:
    async with model(CONVERSATION) as client:

        async def answer(body: dict[str, Any]) -> dict[str, Any]:
            return (await client.post("/v1/chat/completions", json=body)).raise_for_status().json()

        asked = await answer(chat(("user", "hello"), ("assistant", "hi"), ("user", "a Refund, please")))
        choice = asked["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        function = choice["message"]["tool_calls"][0]["function"]
        assert (function["name"], json.loads(function["arguments"])) == ("search", {"query": "refund"})

        done = await answer(chat(("user", "a refund, please"), ("tool", "[]")))
        assert json.loads(done["choices"][0]["message"]["content"]) == {"reply": "The second charge is refunded."}
        assert done["usage"] == {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 48}

        assert (await answer(chat(("user", "hi"))))["choices"][0]["message"]["content"] == "from the small one"
        other = await answer({**chat(("user", "hi")), "model": "large"})
        assert other["choices"][0]["message"]["content"] == "from another"


async def test_a_streamed_answer_ends_with_its_usage() -> None:
    async with model("turns: [{content: two words}]") as client:
        body = chat(("user", "one"), stream=True, stream_options={"include_usage": True})
        text = (await client.post("/v1/chat/completions", json=body)).text
    *events, end = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    chunks = [json.loads(event) for event in events]
    assert end == "[DONE]"
    assert chunks[0]["choices"][0]["delta"]["content"] == "two words"
    assert chunks[1]["choices"][0]["finish_reason"] == "stop"
    assert chunks[2]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


async def test_a_turn_that_is_used_up_gives_way_to_the_next() -> None:
    script = "turns: [{fault: {status: 429, retryAfterSeconds: 7}, times: 1}, {content: fine}]"
    async with model(script) as client:
        refused = await client.post("/v1/chat/completions", json=chat(("user", "hi")))
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "7")
        assert (await client.post("/v1/chat/completions", json=chat(("user", "hi")))).status_code == 200


async def test_a_truncated_answer_breaks_the_connection_and_garbage_is_no_json() -> None:
    script = "turns: [{fault: {body: truncated}, content: words, times: 1}, {fault: {body: garbage}}]"
    async with model(script) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post("/v1/chat/completions", json=chat(("user", "hi")))
        garbage = await client.post("/v1/chat/completions", json=chat(("user", "hi")))
        assert garbage.status_code == 200
        with pytest.raises(ValueError):
            garbage.json()


async def test_the_request_log_holds_headers_and_bodies_and_can_be_emptied() -> None:
    async with model("turns: []") as client:
        headers = {"authorization": "Bearer sesame"}
        assert (
            await client.post("/v1/chat/completions", json=chat(("user", "hi")), headers=headers)
        ).status_code == 404
        (entry,) = (await client.get("/requests")).json()["requests"]
        assert entry["headers"]["authorization"] == "Bearer sesame"
        assert entry["body"] == chat(("user", "hi"))
        await client.delete("/requests")
        assert (await client.get("/requests")).json() == {"requests": []}


async def test_a_script_can_be_replaced_and_a_wrong_one_changes_nothing() -> None:
    async with model("turns: [{content: old}]") as client:

        async def said() -> str:
            answer = await client.post("/v1/chat/completions", json=chat(("user", "hi")))
            return str(answer.json()["choices"][0]["message"]["content"])

        assert (await client.put("/script", content="turns: [{contents: typo}]")).status_code == 400
        assert await said() == "old"
        assert (await client.put("/script", content="turns: [{content: new}]")).status_code == 200
        assert await said() == "new"


async def test_embeddings_are_unit_vectors_that_share_direction_with_shared_words() -> None:
    texts = ["I was charged twice", "charged twice again", "the app crashes", ""]
    async with model("turns: []") as client:
        body = (await client.post("/v1/embeddings", json={"model": "m", "input": texts})).json()
        again = (await client.post("/v1/embeddings", json={"model": "m", "input": texts[0]})).json()
    charged, twice, crash, empty = (row["embedding"] for row in body["data"])
    assert again["data"][0]["embedding"] == charged
    assert body["usage"]["prompt_tokens"] == 10
    assert all(isclose(_dot(vector, vector), 1) for vector in (charged, twice, crash, empty))
    assert _dot(charged, twice) > _dot(charged, crash)


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
