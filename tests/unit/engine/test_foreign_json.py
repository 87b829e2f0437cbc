"""JSON that was written elsewhere is taken only if every parser reads it alike, wherever it comes in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.servers.serving import served
from tests.unit.engine.declared import Declared, tool
from tests.unit.engine.fakecluster import FakeCluster
from tests.unit.engine.podworld import BESIDE, Cluster

from fairlead.api.run import InputFrom
from fairlead.api.tool import Tool
from fairlead.cli.exits import CommandFailed
from fairlead.cli.inputs import read_json
from fairlead.engine.dialer import Dialer
from fairlead.engine.inputs import read_input
from fairlead.engine.models import openai
from fairlead.engine.pods import PodRunner
from fairlead.engine.tools import ToolCaller
from fairlead.errors import StepError
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.expressions import ExpressionError, evaluate
from fairlead.flow.journal import Path

pytestmark = pytest.mark.requirement("A28")

ID = CallId(Path("s"), 1, CallIndex())
ODD: dict[str, tuple[bytes, str]] = {
    "a key twice": (b'{"to": "a", "to": "b"}', "it says a key twice"),
    "a key twice, spelled otherwise": (b'[{"to": {"x": 1, "\\u0078": 2}}]', "it says a key twice"),
    "NaN": (b'{"to": NaN}', "it holds NaN"),
    "infinite": (b'{"to": -1e999}', "it holds a number over 64 bits"),
    "a large number": (b'{"to": 123456789012345678901234567890}', "it holds a number over 64 bits"),
    "a very large number": (b'{"to": ' + b"9" * 5000 + b"}", "it holds a number over 64 bits"),
    "nested": (b"[" * 400 + b"]" * 400, "it is nested too deep"),
    "100,000 brackets": (b"[" * 100_000, "it is nested too deep"),
    "half a character": (b'{"to": "\\ud800"}', "it holds half a character"),
    "no JSON": (b'{"to": x}', "it is wrong at line 1, column 8"),
}
EVERY = pytest.mark.parametrize(("odd", "why"), ODD.values(), ids=ODD.keys())
NO_UTF8 = b'{"to": "\xff"}', "it is no UTF-8"


@EVERY
def test_expressions_do_not_take_it(odd: bytes, why: str) -> None:
    with pytest.raises(ExpressionError, match=f"fromJson takes JSON only: {why}"):
        evaluate("fromJson(input.text)", {"input": {"text": odd.decode()}})


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "events"])
@pytest.mark.parametrize(("odd", "why"), [*ODD.values(), NO_UTF8], ids=[*ODD.keys(), "no UTF-8"])
async def test_tools_are_not_understood(odd: bytes, why: str, stream: bool) -> None:
    outcome = await answered(lambda number: b'{"jsonrpc": "2.0", "id": %d, "result": %s}' % (number, odd), stream)
    assert outcome.result is None and outcome.error is not None and outcome.error.error_class == "OutcomeUnknown"
    assert outcome.error.message.startswith("Tool ledger: the answer is not JSON: ")
    assert why.split(" at ")[0] in outcome.error.message


async def test_an_answer_says_once_which_request_it_answers() -> None:
    result = b'"result": {"structuredContent": {"n": 1}}, "result": {"structuredContent": {"n": 2}}'
    outcome = await answered(lambda number: b'{"jsonrpc": "2.0", "id": %d, %s}' % (number, result))
    assert outcome.error is not None and outcome.error.message.endswith("it says a key twice")


@pytest.mark.parametrize(("odd", "why"), [*ODD.values(), NO_UTF8], ids=[*ODD.keys(), "no UTF-8"])
def test_models_are_not_understood(odd: bytes, why: str) -> None:
    said = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "more": "ODD"})
    content = said.encode().replace(b'"ODD"', odd)
    for read, kind, request in ((openai.read_chat, CallKind.CHAT, {}), (openai.read_embeddings, CallKind.EMBED, {})):
        with pytest.raises(StepError) as caught:
            read(content, Call(ID, kind, "small", request=request), 0)
        assert caught.value.error_class == "ModelError" and "the answer is not JSON" in str(caught.value)
        assert why.split(" at ")[0] in str(caught.value)
    assert openai.error_code(b'{"error": {"code": "full", "code": "empty"}}') == ""


@pytest.mark.parametrize(("odd", "why"), [*ODD.values(), NO_UTF8], ids=[*ODD.keys(), "no UTF-8"])
async def test_outputs_of_containers_are_not_taken(odd: bytes, why: str) -> None:
    cluster = Cluster()
    cluster.output = odd
    outcome = await PodRunner(cluster, BESIDE, clock=lambda: 0)._read("team-a", "p", whole=True)  # type: ignore[arg-type]  # pods in memory
    assert outcome.error is not None and outcome.error.reason == "BadOutput"
    assert outcome.error.message == f"output.json is not JSON: {why}"


@EVERY
async def test_inputs_from_config_maps_are_refused(odd: bytes, why: str) -> None:
    cluster = FakeCluster()
    cluster.config_maps["big"] = {"input.json": odd.decode()}
    source = InputFrom.model_validate({"configMap": {"name": "big", "key": "input.json"}})
    given: Any = await read_input(source, cluster, until_ms=0, now_ms=0)
    assert given.draft.data["message"] == f"ConfigMap big, key input.json: this is no JSON: {why}"


@EVERY
def test_the_command_line_does_not_take_it(odd: bytes, why: str) -> None:
    with pytest.raises(CommandFailed, match=f"--data: no JSON: {why}"):
        read_json("--data", odd.decode())


@pytest.mark.parametrize("stream", [False, True], ids=["JSON", "events"])
async def test_a_refusal_of_the_listing_is_read_like_any_answer(stream: bool) -> None:
    def refuses(number: int) -> bytes:
        return b'{"jsonrpc": "2.0", "id": %d, "error": {"code": 1, "message": "\\ud800"}}' % number

    async with answering(refuses, stream) as (caller, ledger):
        with pytest.raises(StepError, match="the answer is not JSON"):
            await caller.discover("ledger", ledger)


async def answered(body: Callable[[int], bytes], stream: bool = False) -> Outcome:
    """Return the outcome of a call to a server that answers it with these bytes."""
    call = Call(ID, CallKind.TOOL, "ledger", "append", {"arguments": {}})
    async with answering(body, stream) as (caller, ledger):
        return await caller.call("ledger", ledger, call, timeout_seconds=5, idempotency_key=None, trace_parent="")


@asynccontextmanager
async def answering(body: Callable[[int], bytes], stream: bool = False) -> AsyncIterator[tuple[ToolCaller, Tool]]:
    """Serve a Tool whose server answers with these bytes."""

    async def answer(request: Request) -> Response:
        message = await request.json()
        if message["method"] == "server/discover":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}
            return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})
        said = body(message["id"])
        media_type = "text/event-stream" if stream else "application/json"
        return Response(b"data: %s\n\n" % said if stream else said, media_type=media_type)

    app, dialer = Starlette(routes=[Route("/mcp", answer, methods=["POST"])]), Dialer()
    try:
        async with served(app) as url:
            ledger = tool(f"{url}/mcp", functions=[{"name": "append", "effect": "Reversible"}])
            yield ToolCaller(dialer, Declared(ledger, own=True)), ledger
    finally:
        await dialer.close()
