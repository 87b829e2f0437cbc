"""Tools: MCP servers of both generations, what a failure means for an effect, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path as File
from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import MCPServer
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.servers import ledger
from tests.servers.serving import get, served
from tests.unit.engine.declared import Declared, tool

from fairlead.engine.dialer import Dialer
from fairlead.engine.tools import ToolCaller
from fairlead.errors import EgressDenied, StepError
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind, Outcome
from fairlead.flow.journal import Path

TRACE_PARENT = "00-7f0c3a52000040008000000000000001-00f067aa0ba902b7-01"
FUNCTIONS = [
    {"name": "read", "effect": "Read"},
    {"name": "append", "effect": "Reversible"},
    {"name": "append_keyed", "effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}},
    {"name": "fail", "effect": "Read"},
    {"name": "slow", "effect": "Reversible"},
    {"name": "echo_headers", "effect": "Read"},
]
BY_ARGUMENT = [{"name": "append_keyed", "effect": "Reversible", "idempotency": {"argument": "clientToken"}}]


class Caller:
    """A ToolCaller for one tool at one address."""

    def __init__(self, url: str, **spec: Any) -> None:
        self.resources = Declared(tool(url, **{"functions": FUNCTIONS} | spec), own=True)
        self.dialer = Dialer()
        self.caller = ToolCaller(self.dialer, self.resources)

    @property
    def tool(self) -> Any:
        return self.resources.tools["ledger"]

    async def call(
        self, function: str, *, token: str | None = None, timeout_seconds: float = 5, **arguments: Any
    ) -> Outcome:
        call = Call(CallId(Path("s"), 1, CallIndex()), CallKind.TOOL, "ledger", function, {"arguments": arguments})
        return await self.caller.call(
            "ledger", self.tool, call, timeout_seconds=timeout_seconds, idempotency_key=token, trace_parent=TRACE_PARENT
        )


@asynccontextmanager
async def calling(url: str, **spec: Any) -> AsyncIterator[Caller]:
    caller = Caller(url, **spec)
    try:
        yield caller
    finally:
        await caller.dialer.close()


@asynccontextmanager
async def ledger_tool(folder: File, **spec: Any) -> AsyncIterator[tuple[Caller, str, ledger.Gatekeeper]]:
    app = ledger.create_app(folder / "ledger.jsonl")
    async with served(app) as url, calling(f"{url}/mcp", **spec) as caller:
        yield caller, url, app


class OldServer:
    """An MCP server of 2025-11-25: it keeps sessions, answers by SSE, and lists its functions page by page.

    `say` are events that it sends before the result of a call; `result` is that result; `sessions` are known ones.
    """

    def __init__(self) -> None:
        self.sessions: set[str] = set()
        self.opened = 0
        self.calls: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.say: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}]}
        self.pages = [["read"], ["append"], ["other"]]
        self.endless = False
        self.cursor: Any = None
        self.version = "2025-11-25"
        self.app = Starlette(routes=[Route("/mcp", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        message = await request.json()
        method, session = message["method"], request.headers.get("mcp-session-id", "")
        if method == "initialize":
            self.opened += 1
            self.sessions.add(f"s{self.opened}")
            result = {"protocolVersion": self.version, "capabilities": {}, "serverInfo": {"name": "o", "version": "1"}}
            answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            return JSONResponse(answer, headers={"Mcp-Session-Id": f"s{self.opened}"})
        if not session:
            return Response("Bad Request: no session", 400)
        if session not in self.sessions:
            return Response("no such session", 404)
        if "id" not in message:
            return Response(status_code=202)
        return self._stream(self._result(message), message, request)

    def _result(self, message: dict[str, Any]) -> dict[str, Any]:
        if message["method"] == "tools/list":
            page = int(message["params"].get("cursor", 0))
            more = {"nextCursor": str(0 if self.endless else page + 1)} if page + 1 < len(self.pages) else {}
            more |= {"nextCursor": self.cursor} if self.cursor is not None else {}
            return {"tools": [{"name": name, "inputSchema": {}} for name in self.pages[page]]} | more
        self.calls.append(message["params"])
        return self.result

    def _stream(self, result: dict[str, Any], message: dict[str, Any], request: Request) -> Response:
        self.headers.append(dict(request.headers))
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        events = [*self.say, answer]
        text = "".join(f"event: message\r\ndata: {json.dumps(event)}\r\n\r\n" for event in events)
        return Response(f": hello\r\nid: 0\r\ndata: \r\n\r\n{text}", media_type="text/event-stream")


def answering(respond: Callable[[dict[str, Any]], Response]) -> Starlette:
    """A server that speaks the new protocol and answers calls as told."""

    async def answer(request: Request) -> Response:
        message = await request.json()
        if message["method"] == "server/discover":
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}
            return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})
        return respond(message)

    return Starlette(routes=[Route("/mcp", answer, methods=["POST"])])


def class_of(outcome: Outcome) -> str:
    return outcome.error.error_class if outcome.error else "Succeeded"


async def test_a_function_answers_with_its_structured_content(tmp_path: File) -> None:
    async with ledger_tool(tmp_path) as (caller, url, _):
        assert (await caller.call("append", key="k")).result == {"key": "k", "count": 1, "entry": 1}
        assert (await caller.call("read", key="k")).result["count"] == 1
        assert len((await get(f"{url}/ledger"))["entries"]) == 1


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("functions", [FUNCTIONS, BY_ARGUMENT], ids=["header", "argument"])
async def test_the_same_key_has_one_effect(tmp_path: File, functions: list[dict[str, Any]]) -> None:
    async with ledger_tool(tmp_path, functions=functions) as (caller, url, _):
        for _ in range(2):
            assert (await caller.call("append_keyed", token="t1", key="k")).result["count"] == 1
        assert len((await get(f"{url}/ledger"))["entries"]) == 1


@pytest.mark.parametrize(("given", "expected"), [("mine", "mine"), (None, "t1"), ("", "t1")])
async def test_a_token_that_the_caller_gave_stays(tmp_path: File, given: str | None, expected: str) -> None:
    async with ledger_tool(tmp_path, functions=BY_ARGUMENT) as (caller, url, _):
        await caller.call("append_keyed", token="t1", key="k", clientToken=given)
        assert (await get(f"{url}/ledger"))["entries"][0]["token"] == expected


@pytest.mark.parametrize("header", ["authorization", "Mcp-Session-Id", "Content-Length", "X-Key"])
async def test_a_key_never_takes_the_place_of_another_header(tmp_path: File, header: str) -> None:
    functions = [{"name": "append_keyed", "effect": "Reversible", "idempotency": {"header": header}}]
    credential = {"secretRef": {"name": "s", "key": "k"}, "header": "x-key"}
    async with ledger_tool(tmp_path, functions=functions, credential=credential) as (caller, url, _):
        assert class_of(await caller.call("append_keyed", token="t1", key="k")) == "Invalid"
        assert (await get(f"{url}/calls"))["entries"] == []


@pytest.mark.requirement("A21")
async def test_a_tool_gets_its_own_credential_and_the_trace(tmp_path: File) -> None:
    credential = {"secretRef": {"name": "tickets", "key": "token"}}
    async with ledger_tool(tmp_path, credential=credential) as (caller, url, _):
        host = url.removeprefix("http://")
        caller.resources._own, caller.resources.engine = False, Declared(private=(host,)).engine
        caller.resources.secrets = {("tickets", "token"): "tok-0123456789", ("tickets", "allowed-hosts"): url}
        headers = (await caller.call("echo_headers")).result["headers"]
        assert headers["authorization"] == "Bearer tok-0123456789"

        caller.resources.secrets[("tickets", "token")] = "tok-rotated-1"
        headers = (await caller.call("echo_headers")).result["headers"]
        assert headers["authorization"] == "Bearer tok-rotated-1", "a rotated secret is used at once"


async def test_the_trace_goes_into_the_meta_of_the_call() -> None:
    seen: list[dict[str, Any]] = []

    def respond(message: dict[str, Any]) -> Response:
        seen.append(message["params"]["_meta"])
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}})

    async with served(answering(respond)) as url, calling(f"{url}/mcp") as caller:
        assert (await caller.call("read")).result == {"text": ""}
    assert seen[0]["traceparent"] == TRACE_PARENT
    assert seen[0]["io.modelcontextprotocol/clientCapabilities"] == {}


async def test_a_server_of_the_older_kind_keeps_its_session() -> None:
    server = OldServer()
    server.say = [{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "working"}}]
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        for n in range(2):
            assert (await caller.call("read", n=n)).result == {"text": "done"}
        assert server.opened == 1 and [call["arguments"] for call in server.calls] == [{"n": 0}, {"n": 1}]
        assert server.headers[0]["mcp-protocol-version"] == "2025-11-25"
        assert list((await caller.caller.discover("ledger", caller.tool)).digests) == ["read", "append", "other"]


@pytest.mark.requirement("F31")
async def test_a_server_that_restarts_is_connected_to_again() -> None:
    server = OldServer()
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        await caller.call("append", n=0)
        server.sessions.clear()
        outcomes = await asyncio.gather(*(caller.call("append", n=n) for n in range(1, 6)))
        assert {class_of(outcome) for outcome in outcomes} == {"Succeeded"}
        assert sorted(call["arguments"]["n"] for call in server.calls) == [0, 1, 2, 3, 4, 5]


@pytest.mark.requirement("F31")
async def test_a_server_that_speaks_another_version_after_a_restart_is_asked_anew() -> None:
    old = OldServer()
    use_old = False

    async def either(scope: Any, receive: Any, send: Any) -> None:
        await (old.app if use_old else new)(scope, receive, send)

    def respond(message: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {"structuredContent": {"new": True}}})

    new = answering(respond)
    async with served(either) as url, calling(f"{url}/mcp") as caller:
        assert (await caller.call("read")).result == {"new": True}
        use_old = True
        assert class_of(await caller.call("append")) == "ToolError", "an unclear refusal is not sent twice"
        assert (await caller.call("append")).result == {"text": "done"}
        assert len(old.calls) == 1


@pytest.mark.requirement("F31")
async def test_a_read_survives_a_change_of_version() -> None:
    old = OldServer()
    use_old = False

    async def either(scope: Any, receive: Any, send: Any) -> None:
        await (old.app if use_old else new)(scope, receive, send)

    new = answering(lambda message: JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": {"content": []}}))
    async with served(either) as url, calling(f"{url}/mcp") as caller:
        await caller.call("read")
        use_old = True
        assert (await caller.call("read")).result == {"text": "done"}


async def test_arguments_are_repeated_in_headers_where_the_server_wants_that() -> None:
    server: MCPServer[Any] = MCPServer("regional", version="1.0", log_level="CRITICAL")
    effects: list[str] = []

    @server.tool()
    def append(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
        effects.append(region)
        return region

    app = server.streamable_http_app(json_response=True, stateless_http=True)
    async with served(app) as url, calling(f"{url}/mcp") as caller:
        for region in ("eu-west", " zürich "):
            assert (await caller.call("append", region=region)).result == {"result": region}
    assert effects == ["eu-west", " zürich "]


async def test_wrong_arguments_are_an_answer_and_cost_no_new_connection() -> None:
    requests: list[str] = []

    def respond(message: dict[str, Any]) -> Response:
        requests.append(message["method"])
        error = {"code": -32602, "message": "query is missing"}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "error": error}, 400)

    async with served(answering(respond)) as url, calling(f"{url}/mcp") as caller:
        outcome = await caller.call("read")
    assert class_of(outcome) == "ToolError" and outcome.result == {"text": "query is missing"}
    assert requests == ["tools/call"]


async def test_discovery_names_the_protocol_and_all_functions(tmp_path: File) -> None:
    async with ledger_tool(tmp_path) as (caller, _, __):
        found = await caller.caller.discover("ledger", caller.tool)
    assert found.protocol_version == "2026-07-28"
    assert set(found.digests) == {"read", "append", "append_keyed", "slow", "fail", "echo_headers"}


async def test_a_listing_without_end_is_given_up() -> None:
    server = OldServer()
    server.endless = True
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        with pytest.raises(StepError, match="no end"):
            await caller.caller.discover("ledger", caller.tool)


@pytest.mark.parametrize("cursor", [7, {"page": 2}, "half a character: \ud800"])
async def test_a_listing_that_cannot_be_gone_on_with_is_none(cursor: Any) -> None:
    server = OldServer()
    server.cursor = cursor
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        with pytest.raises(StepError, match="no listing"):
            await caller.caller.discover("ledger", caller.tool)


@pytest.mark.requirement("G3")
@pytest.mark.parametrize(
    ("mode", "function", "expected", "effects"),
    [
        ("refuse", "read", "Unavailable", 0),
        ("refuse", "append_keyed", "Unavailable", 0),
        ("refuse", "append", "OutcomeUnknown", 0),
        ("hang", "read", "Timeout", 0),
        ("hang", "append", "OutcomeUnknown", 0),
        ("swallow", "append", "OutcomeUnknown", 1),
        ("swallow", "append_keyed", "Timeout", 1),
    ],
)
async def test_no_clear_answer_means_something_else_for_an_effect(
    tmp_path: File, mode: ledger.Mode, function: str, expected: str, effects: int
) -> None:
    async with ledger_tool(tmp_path) as (caller, url, app):
        await caller.call("read", key="k")
        app.mode = mode
        token = "t1" if function == "append_keyed" else None
        assert class_of(await caller.call(function, token=token, timeout_seconds=0.5, key="k")) == expected
        app.mode = "normal"
        assert len((await get(f"{url}/ledger"))["entries"]) == effects


@pytest.mark.requirement("G3")
@pytest.mark.parametrize("mode", ["refuse", None])
async def test_a_server_that_cannot_be_connected_to_was_surely_not_called(
    tmp_path: File, mode: ledger.Mode | None
) -> None:
    async with ledger_tool(tmp_path) as (caller, _, app):
        if mode:
            app.mode = mode
            assert class_of(await caller.call("append", key="k")) == "Unavailable"
    assert class_of(await caller.call("append", key="k")) == "Unavailable"
    await caller.dialer.close()


@pytest.mark.requirement("F29")
@pytest.mark.parametrize(
    ("kind", "reason", "text"),
    [
        ("tool", "ToolError", "Error executing tool fail: failed as asked"),
        ("protocol", "ToolError", "failed as asked"),
        ("large", "TooLarge", None),
    ],
)
async def test_a_tool_that_fails_is_a_tool_error(tmp_path: File, kind: str, reason: str, text: str | None) -> None:
    async with ledger_tool(tmp_path) as (caller, _, __):
        outcome = await caller.call("fail", kind=kind)
        assert outcome.error is not None and (class_of(outcome), outcome.error.reason) == ("ToolError", reason)
        assert "as asked" not in outcome.error.message, "messages hold no content"
        assert (outcome.result or {}).get("text") == text


@pytest.mark.requirement("F29")
@pytest.mark.parametrize(
    ("answer", "read", "append"),
    [
        (Response("garbage", media_type="application/json"), "ToolError", "OutcomeUnknown"),
        (Response("[1]", media_type="application/json"), "ToolError", "OutcomeUnknown"),
        (Response('{"jsonrpc": "2.0"}', media_type="application/json"), "ToolError", "OutcomeUnknown"),
        (Response("<html>", media_type="text/html"), "ToolError", "OutcomeUnknown"),
        (Response("data: {}\n\n", media_type="text/event-stream"), "ToolError", "OutcomeUnknown"),
        (Response("no", 401), "ToolError", "ToolError"),
        (Response("no", 302, {"Location": "http://127.0.0.1:1/"}), "ToolError", "ToolError"),
        (Response("no", 429, {"Retry-After": "2"}), "RateLimited", "RateLimited"),
        (Response("no", 502), "Unavailable", "OutcomeUnknown"),
    ],
    ids=["garbage", "no object", "no result", "html", "empty stream", "401", "redirect", "429", "502"],
)
async def test_what_is_no_answer_is_no_result(answer: Response, read: str, append: str) -> None:
    async with served(answering(lambda _: answer)) as url, calling(f"{url}/mcp") as caller:
        assert (class_of(await caller.call("read")), class_of(await caller.call("append"))) == (read, append)


@pytest.mark.requirement("A41")
async def test_a_server_that_asks_for_input_is_refused() -> None:
    def respond(message: dict[str, Any]) -> Response:
        result = {"resultType": "input_required", "inputRequests": {"p": {"method": "elicitation/create"}}}
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async with served(answering(respond)) as url, calling(f"{url}/mcp") as caller:
        outcome = await caller.call("read")
    assert outcome.error is not None and outcome.error.reason == "InputRequired" and outcome.result is None


@pytest.mark.requirement("A41")
@pytest.mark.parametrize("method", ["sampling/createMessage", "elicitation/create", "roots/list"])
async def test_a_server_that_asks_the_client_is_refused(method: str) -> None:
    server = OldServer()
    server.say = [{"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}]
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        assert class_of(await caller.call("read")) == "ToolError"
        assert class_of(await caller.call("append")) == "OutcomeUnknown"


@pytest.mark.requirement("A35")
async def test_mcp_goes_through_the_dialer_too(tmp_path: File) -> None:
    async with ledger_tool(tmp_path) as (caller, url, _):
        caller.resources._own = False
        for address in (f"{url}/mcp", f"{url}/mcp".replace("127.0.0.1", "localhost")):
            caller.resources.addresses["ledger"] = address
            outcome = await caller.call("append", key="k")
            assert outcome.error is not None and (class_of(outcome), outcome.error.reason) == ("Denied", "EgressDenied")
            with pytest.raises(EgressDenied):
                await caller.caller.discover("ledger", caller.tool)
        assert (await get(f"{url}/calls"))["entries"] == []


@pytest.mark.parametrize(("limit", "expected"), [(2000, "Succeeded"), (1024, "ToolError")])
async def test_a_result_is_no_larger_than_allowed(limit: int, expected: str) -> None:
    server = OldServer()
    server.result = {"content": [{"type": "text", "text": "x" * 1500}]}
    async with served(server.app) as url, calling(f"{url}/mcp", limits={"maxResultBytes": limit}) as caller:
        assert class_of(await caller.call("read")) == expected


async def test_many_calls_share_one_handshake() -> None:
    server = OldServer()
    async with served(server.app) as url, calling(f"{url}/mcp") as caller:
        await asyncio.gather(*(caller.call("read", n=n) for n in range(10)))
    assert server.opened == 1 and len(server.calls) == 10
