"""A model whose every answer is written down beforehand: for demos that must not vary and for tests of what goes wrong.

It speaks the OpenAI protocol: `/v1/chat/completions` (also streamed), `/v1/embeddings`, `/v1/models`. A script lists
turns; the first one that fits a request and is not used up answers it. All keys of `when` must hold:

    turns:
      - when: {contains: refund, toolResults: 0, model: small}   # last user message; tool messages so far; the model
        toolCalls: [{name: search, arguments: {query: refund}}]
      - when: {toolResults: 1}
        content: The second charge is refunded.                  # text, or an object that is sent as JSON
        usage: {promptTokens: 40, completionTokens: 8}           # counted in words when left out
      - fault: {status: 429, retryAfterSeconds: 1}
        times: 2                                                 # then the turn is used up
      - fault: {delaySeconds: 5}                                 # late; together with content, late but right
      - fault: {body: truncated}                                 # half of the answer, then the connection ends
      - fault: {body: garbage}                                   # status 200, and no JSON

`GET /requests` returns what arrived, headers included, and DELETE forgets it; `PUT /script` replaces the script.
Embeddings are bags of hashed words: texts that share words are near each other, on every machine alike.

    python scripted.py --script FILE --port 8084
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import re
import struct
import time
from collections.abc import AsyncIterator
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

DIMENSIONS = 64
DEFAULT_SCRIPT = "turns: [{content: 'I have no script.'}]"

Json = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, frozen=True)


class When(_Strict):
    """What a request must look like; what is left out is not looked at."""

    contains: str | None = None
    tool_results: int | None = None
    model: str | None = None

    def fits(self, request: Json) -> bool:
        """Tell whether a chat request fits."""
        messages = request.get("messages", [])
        said = [_text(message.get("content")) for message in messages if message.get("role") == "user"]
        results = sum(message.get("role") == "tool" for message in messages)
        return (
            (self.contains is None or (bool(said) and self.contains.lower() in said[-1].lower()))
            and (self.tool_results is None or self.tool_results == results)
            and (self.model is None or self.model == request.get("model"))
        )


class ToolCall(_Strict):
    """A call that the model asks for."""

    name: str
    arguments: Json = {}


class Usage(_Strict):
    """Tokens to report."""

    prompt_tokens: Annotated[int, Field(ge=0)]
    completion_tokens: Annotated[int, Field(ge=0)]


class Fault(_Strict):
    """What goes wrong with an answer."""

    status: Annotated[int, Field(ge=400, le=599)] | None = None
    retry_after_seconds: int | None = None
    delay_seconds: Annotated[float, Field(ge=0)] = 0
    body: Literal["whole", "truncated", "garbage"] = "whole"


class Turn(_Strict):
    """One answer, and the requests it is for."""

    when: When = When()
    content: str | Json | None = None
    tool_calls: list[ToolCall] = []
    usage: Usage | None = None
    finish_reason: str | None = None
    fault: Fault = Fault()
    times: Annotated[int, Field(ge=1)] | None = None


class Script(_Strict):
    """Turns in the order in which they are tried."""

    turns: list[Turn]


class Play:
    """A script and how far it has been used, with the log of the requests."""

    def __init__(self, script: Script) -> None:
        self.requests: list[Json] = []
        self.load(script)

    def load(self, script: Script) -> None:
        """Start over with another script; the log stays."""
        self._script = script
        self._used = [0] * len(script.turns)
        self._answers = 0

    def next(self, request: Json) -> Turn | None:
        """Return the first turn that fits and count it as used."""
        for index, turn in enumerate(self._script.turns):
            if (turn.times is None or self._used[index] < turn.times) and turn.when.fits(request):
                self._used[index] += 1
                return turn
        return None

    def completion(self, turn: Turn, request: Json) -> Json:
        """Build the answer of a turn as an OpenAI chat completion."""
        self._answers += 1
        calls = [
            {
                "id": f"call_{self._answers}_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for index, call in enumerate(turn.tool_calls)
        ]
        content = json.dumps(turn.content) if isinstance(turn.content, dict) else turn.content
        message: Json = {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})
        return {
            "id": f"chatcmpl-{self._answers}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": request.get("model", "scripted"),
            "choices": [
                {
                    "index": 0,
                    "message": message,
                    "finish_reason": turn.finish_reason or ("tool_calls" if calls else "stop"),
                }
            ],
            "usage": _usage(turn, request, content or ""),
        }


def _usage(turn: Turn, request: Json, content: str) -> Json:
    if turn.usage is not None:
        prompt, completion = turn.usage.prompt_tokens, turn.usage.completion_tokens
    else:
        prompt = sum(len(_text(message.get("content")).split()) for message in request.get("messages", []))
        completion = len(content.split()) + len(turn.tool_calls)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _text(content: object) -> str:
    """The text of a message, which is a string or a list of parts."""
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def bag_of_words(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return a unit vector to which every word of `text` adds 1 or -1 in a place that its hash gives."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1 if digest[4] % 2 else -1
    length = sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else [1.0] + [0.0] * (dimensions - 1)


def create_app(script: Script) -> Starlette:
    """Build the server around a script."""
    play = Play(script)

    async def received(request: Request) -> Json:
        try:
            body = await request.json()
        except ValueError:
            body = None
        entry = {"method": request.method, "path": request.url.path, "headers": dict(request.headers), "body": body}
        play.requests.append(entry | {"at": time.time()})
        return body if isinstance(body, dict) else {}

    async def chat(request: Request) -> Response:
        body = await received(request)
        turn = play.next(body)
        if turn is None:
            return _error(404, "no turn of the script fits this request")
        await asyncio.sleep(turn.fault.delay_seconds)
        if turn.fault.status is not None:
            after = turn.fault.retry_after_seconds
            return _error(turn.fault.status, "scripted fault", {} if after is None else {"retry-after": str(after)})
        completion = play.completion(turn, body)
        if turn.fault.body == "garbage":
            return Response(b"\x00<html>not what you asked for", media_type="application/json")
        if body.get("stream"):
            with_usage = (body.get("stream_options") or {}).get("include_usage", False)
            payload, media_type = _events(completion, with_usage=with_usage), "text/event-stream"
        else:
            payload, media_type = json.dumps(completion).encode(), "application/json"
        if turn.fault.body == "truncated":
            # A length that is never reached: the connection ends, as with a server that dies while it answers.
            return StreamingResponse(
                _half(payload), media_type=media_type, headers={"content-length": str(len(payload))}
            )
        return Response(payload, media_type=media_type)

    async def embeddings(request: Request) -> Response:
        body = await received(request)
        texts = [body["input"]] if isinstance(body.get("input"), str) else body.get("input")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return _error(400, "input must be a string or a list of strings")
        vectors = [bag_of_words(text, body.get("dimensions", DIMENSIONS)) for text in texts]
        as_base64 = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector}
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": body.get("model", "scripted"), "data": data, "usage": usage})

    async def models(request: Request) -> Response:
        await received(request)
        return JSONResponse({"object": "list", "data": [{"id": "scripted", "object": "model", "owned_by": "script"}]})

    async def requests(request: Request) -> Response:
        if request.method == "DELETE":
            play.requests.clear()
        return JSONResponse({"requests": play.requests})

    async def replace(request: Request) -> Response:
        try:
            play.load(parse(await request.body()))
        except (ValidationError, yaml.YAMLError) as error:
            return _error(400, str(error))
        return JSONResponse({"status": "ok"})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/embeddings", embeddings, methods=["POST"]),
            Route("/v1/models", models),
            Route("/requests", requests, methods=["GET", "DELETE"]),
            Route("/script", replace, methods=["PUT"]),
            Route("/health", health),
        ]
    )


def _events(completion: Json, *, with_usage: bool) -> bytes:
    """The server-sent events of a completion: the message in one piece, its end, and the usage when asked for."""
    head = {key: completion[key] for key in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
    choice = completion["choices"][0]
    delta = dict(choice["message"])
    if "tool_calls" in delta:
        delta["tool_calls"] = [{"index": index} | call for index, call in enumerate(delta["tool_calls"])]
    events: list[Json] = [
        head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if with_usage:
        events.append(head | {"choices": [], "usage": completion["usage"]})
    return b"".join(f"data: {json.dumps(event)}\n\n".encode() for event in events) + b"data: [DONE]\n\n"


async def _half(payload: bytes) -> AsyncIterator[bytes]:
    yield payload[: len(payload) // 2]


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "scripted"}}, status_code=status, headers=headers)


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def parse(text: str | bytes) -> Script:
    """Read a script from YAML or JSON.

    Raises:
        yaml.YAMLError: the text is neither.
        ValidationError: it is not a script.
    """
    return Script.model_validate(yaml.safe_load(text))


def main() -> None:
    parser = argparse.ArgumentParser(description="a scripted OpenAI-compatible model")
    parser.add_argument("--script", type=Path, default=None, help="a YAML or JSON file; see the top of this file")
    parser.add_argument("--host", default=os.environ.get("SERVER_HOST", "127.0.0.1"), help="address ($SERVER_HOST)")
    parser.add_argument("--port", type=int, default=8084)
    options = parser.parse_args()
    script = parse(options.script.read_text(encoding="utf-8") if options.script else DEFAULT_SCRIPT)
    app = create_app(script)
    # Answers that are delayed are not waited for when the server is told to stop.
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
