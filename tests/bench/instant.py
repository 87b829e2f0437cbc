"""A model server that answers at once, in a process of its own, and tells how long it took itself.

    python -m tests.bench.instant --port 8090

`POST /v1/chat/completions` answers the same words always; `GET /seconds` returns its own time for each request since
the last time it was asked.
"""

from __future__ import annotations

import argparse
import time

import orjson
import uvicorn
from starlette.types import Receive, Scope, Send

_MESSAGE = {"role": "assistant", "content": "Yes."}
ANSWER = orjson.dumps(
    {
        "id": "instant",
        "object": "chat.completion",
        "model": "instant",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)


class Instant:
    """The ASGI application."""

    def __init__(self) -> None:
        self._seconds: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        if scope["method"] == "GET":
            seconds, self._seconds = self._seconds, []
            await _answer(send, orjson.dumps(seconds))
            return
        began = time.perf_counter()
        while (await receive()).get("more_body"):
            pass
        await _answer(send, ANSWER)
        self._seconds.append(time.perf_counter() - began)


async def _answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="a model that answers at once")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(Instant(), host="127.0.0.1", port=options.port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main()
