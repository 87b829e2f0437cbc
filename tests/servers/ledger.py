"""An MCP server that keeps a ledger of what it was asked to do: the witness of the crash and attack tests.

Whether an effect happened once, twice or never is not asked of the engine, it is counted here. Every call is noted
with its arguments and all headers, also those that should never have been sent; every effect is on disk before it is
answered, so that it outlives this process too. `append_keyed` is the well-behaved tool: the same `Idempotency-Key`
header or `clientToken` argument is one effect. `append` is the ordinary one: called twice, done twice.

    GET /ledger     the effects                       GET /calls      every call since the start
    GET /mode       the mode, and how many calls are held without an answer
    PUT /mode       {"mode": ...}, for what follows:
        normal      answer
        refuse      503 for everything, nothing is done
        hang        a call is not carried out, and no answer ever comes
        swallow     a call is carried out, and no answer ever comes

    python ledger.py --port 8085 --file ledger.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, ToolAnnotations
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Mode = Literal["normal", "refuse", "hang", "swallow"]
Failure = Literal["tool", "protocol", "large", "exit"]
Json = dict[str, Any]

LARGE_CHARACTERS = 8 * 1024 * 1024

READS = ToolAnnotations(read_only_hint=True)
EFFECT = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)
KEYED_EFFECT = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)


class Count(BaseModel):
    """How many effects a key has had, and which one answered."""

    key: str
    count: int
    entry: int | None = None


class Headers(BaseModel):
    """The headers of the call."""

    headers: dict[str, str]


class Text(BaseModel):
    """A text, at times a very long one."""

    text: str


class Ledger:
    """Effects, in a file of JSON lines that is synchronised before an effect counts, and calls, in memory."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()  # functions run in threads: look up a token and write in one go
        self._calls: list[Json] = []
        with path.open("a+", encoding="utf-8") as file:
            file.seek(0)
            text = file.read()
            whole = text[: text.rfind("\n") + 1]
            file.truncate(len(whole.encode()))  # a line that a kill has cut off was never answered
        self._effects = [json.loads(line) for line in whole.splitlines()]

    def note(self, call: Json) -> None:
        """Note a call, whatever comes of it."""
        with self._lock:
            self._calls.append(call)

    def effect(self, call: Json, *, token: str | None = None) -> Count:
        """Carry out an effect; one that carries the token of an earlier one is answered as that one was."""
        key = call["arguments"]["key"]
        with self._lock:
            known = next((entry for entry in self._effects if token and entry["token"] == token), None)
            if known is None:
                known = {"entry": len(self._effects) + 1, **call, "key": key, "token": token, "count": self._next(key)}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(known) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                self._effects.append(known)
            return Count(key=known["key"], count=known["count"], entry=known["entry"])

    def count(self, key: str) -> int:
        """Return how many effects `key` has had."""
        with self._lock:
            return self._next(key) - 1

    def effects(self) -> list[Json]:
        """Return all effects, oldest first."""
        with self._lock:
            return list(self._effects)

    def calls(self) -> list[Json]:
        """Return all calls since the start, oldest first."""
        with self._lock:
            return list(self._calls)

    def _next(self, key: str) -> int:
        return 1 + sum(entry["key"] == key for entry in self._effects)


class Gatekeeper:
    """ASGI middleware before the MCP endpoint that refuses requests, or holds calls without ever answering them."""

    def __init__(self, app: ASGIApp, *, mode: Mode) -> None:
        self._app = app
        self.mode: Mode = mode
        self.held = 0  # calls that wait in vain; one that is swallowed counts once it has been carried out

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/mcp" or self.mode == "normal":
            await self._app(scope, receive, send)
        elif self.mode == "refuse":
            await Response("refused", status_code=503)(scope, receive, send)
        else:
            await self._hold(scope, receive, send)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        is_call = b'"tools/call"' in body  # a handshake is answered, else no call would ever be sent
        if not is_call or self.mode == "swallow":
            await self._app(scope, _replay(body, receive), _discard if is_call else send)
        if is_call:
            self.held += 1
            while (await receive())["type"] != "http.disconnect":
                pass
            self.held -= 1


def _replay(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read already, then whatever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _discard(_: Message) -> None:
    """Send nothing."""


def create_server(ledger: Ledger) -> MCPServer[Any]:
    """Build the MCP server around a ledger."""
    server: MCPServer[Any] = MCPServer("ledger", version="1.0", log_level="CRITICAL")

    def note(context: Context[Any, Any], function: str, **arguments: object) -> Json:
        headers = dict(context.headers or {})
        call = {"function": function, "arguments": arguments, "headers": headers, "at": time.time()}
        ledger.note(call)
        return call

    @server.tool(annotations=READS)
    def read(key: str, context: Context) -> Count:
        """Tell how many effects a key has had."""
        note(context, "read", key=key)
        return Count(key=key, count=ledger.count(key))

    @server.tool(annotations=EFFECT)
    def append(key: str, context: Context) -> Count:
        """Have an effect; a second call has a second effect."""
        return ledger.effect(note(context, "append", key=key))

    @server.tool(annotations=KEYED_EFFECT)
    def append_keyed(key: str, context: Context, clientToken: str | None = None) -> Count:
        """Have an effect, once for each Idempotency-Key header or clientToken."""
        call = note(context, "append_keyed", key=key, clientToken=clientToken)
        return ledger.effect(call, token=clientToken or call["headers"].get("idempotency-key"))

    @server.tool(annotations=EFFECT)
    async def slow(seconds: Annotated[float, Field(ge=0, le=600)], key: str, context: Context) -> Count:
        """Have an effect at once and answer later, so that whoever gives up waiting does not know."""
        count = ledger.effect(note(context, "slow", seconds=seconds, key=key))
        await asyncio.sleep(seconds)
        return count

    @server.tool(annotations=READS)
    def fail(kind: Failure, context: Context) -> Text:
        """Fail: a tool error, a protocol error, a result of 8 MiB, or the end of this process without an answer."""
        note(context, "fail", kind=kind)
        if kind == "tool":
            raise ToolError("failed as asked")
        if kind == "protocol":
            raise MCPError(INTERNAL_ERROR, "failed as asked")
        if kind == "exit":
            os._exit(1)
        return Text(text="x" * LARGE_CHARACTERS)

    @server.tool(annotations=READS)
    def echo_headers(context: Context) -> Headers:
        """Return the headers that came with this call."""
        return Headers(headers=note(context, "echo_headers")["headers"])

    return server


def create_app(path: Path, *, mode: Mode = "normal", host: str = "127.0.0.1") -> Gatekeeper:
    """Build the HTTP application; the effects are kept in the file `path`."""
    ledger = Ledger(path)
    server = create_server(ledger)

    @server.custom_route("/ledger", methods=["GET"])
    async def effects(_: Request) -> Response:
        return JSONResponse({"entries": ledger.effects()})

    @server.custom_route("/calls", methods=["GET"])
    async def calls(_: Request) -> Response:
        return JSONResponse({"entries": ledger.calls()})

    @server.custom_route("/mode", methods=["GET", "PUT"])
    async def mode_of_answering(request: Request) -> Response:
        if request.method == "PUT":
            wanted = (await request.json()).get("mode")
            if wanted not in get_args(Mode):
                return JSONResponse({"error": f"mode must be one of {', '.join(get_args(Mode))}"}, status_code=400)
            gatekeeper.mode = wanted
        return JSONResponse({"mode": gatekeeper.mode, "held": gatekeeper.held})

    @server.custom_route("/health", methods=["GET"])
    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    gatekeeper = Gatekeeper(server.streamable_http_app(json_response=True, stateless_http=True, host=host), mode=mode)
    return gatekeeper


def main() -> None:
    parser = argparse.ArgumentParser(description="an MCP server that keeps a ledger of its effects")
    parser.add_argument("--host", default=os.environ.get("SERVER_HOST", "127.0.0.1"), help="address ($SERVER_HOST)")
    parser.add_argument("--port", type=int, default=8085)
    parser.add_argument("--file", type=Path, default=None, help="where effects are kept (a temporary file by default)")
    parser.add_argument("--mode", choices=get_args(Mode), default="normal", help="see PUT /mode")
    options = parser.parse_args()
    path = options.file or Path(tempfile.mkdtemp(prefix="ledger-")) / "ledger.jsonl"
    print(f"ledger listens on http://{options.host}:{options.port}/mcp, effects in {path}", flush=True)
    app = create_app(path, mode=options.mode, host=options.host)
    # Calls that hang are not waited for when the server is told to stop.
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
