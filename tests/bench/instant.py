"""A server that answers at once: a model and an MCP server, in a process of its own or as the command of a pod.

    python instant.py --port 8090

`POST /v1/chat/completions` answers the same words always; `POST /mcp` knows the tools `read`, which returns at once,
and `wait`, which takes half a second. `GET /seconds` returns how long it took itself for each model call since it was
asked last. Only what the image of the test servers has is imported.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

Json = dict[str, Any]

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
ANSWER = {"id": "1", "object": "chat.completion", "model": "instant", "choices": [CHOICE], "usage": USAGE}
RESULTS: dict[str, Json] = {
    "server/discover": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}},
    "tools/list": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("read", "wait")]},
    "tools/call": {"content": [], "structuredContent": {"count": 0}, "resultType": "complete"},
}
WAIT_SECONDS = 0.5


class Instant:
    """The ASGI application."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["method"] == "GET":
            seconds, self._seconds = self._seconds, []
            await _answer(send, seconds)
            return
        began = time.perf_counter()
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        if scope["path"] == "/mcp":
            await _answer(send, await _call(json.loads(body)))
        else:
            await _answer(send, ANSWER)
            self._seconds.append(time.perf_counter() - began)


async def _call(request: Json) -> Json:
    if request.get("params", {}).get("name") == "wait":
        await asyncio.sleep(WAIT_SECONDS)
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": RESULTS.get(request["method"], {})}


async def _answer(send: Send, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="a model and a tool that answer at once")
    parser.add_argument("--port", type=int, required=True)
    host = os.environ.get("SERVER_HOST", "127.0.0.1")
    uvicorn.run(Instant(), host=host, port=parser.parse_args().port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
