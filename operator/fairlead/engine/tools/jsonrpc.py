"""JSON-RPC over streamable HTTP, the one exchange that MCP needs: a POST with a request, an answer as JSON or as SSE.

Written here instead of using the SDK's client, because only this way one dialer guards every byte that leaves, the
result is capped while it is read, it is known whether a request was sent, and a call costs a fifth of the CPU time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from fairlead.api.canonical import canonical_json, strict_json
from fairlead.engine.credentials import Destination
from fairlead.engine.dialer import Answer, Dialer
from fairlead.errors import FairleadError

Json = dict[str, Any]

ACCEPT = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
MAX_ERROR_BYTES = 64 * 1024
LISTING = "tools/list"
"""Of its answer each definition is looked at by itself (listing.py): one that nobody can read hides no other."""


class Unreadable(FairleadError):
    """The server answered with something that is no answer to the request. Its message holds no content."""

    reason = "Unreadable"


class HttpStatus(FairleadError):
    """The server answered with an error status and no JSON-RPC error."""

    reason = "HttpStatus"

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"answered {answer.status}")
        self.status = answer.status
        self.answer = answer


class RpcError(FairleadError):
    """The server answered with a JSON-RPC error. `text` is the server's and may hold content."""

    reason = "RpcError"

    def __init__(self, code: int, text: str, data: Any = None, *, status: int = 200) -> None:
        super().__init__(f"answered with error {code}")
        self.code = code
        self.text = text
        self.data = data
        self.status = status


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of a request, and the headers that came with it."""

    result: Json
    headers: Mapping[str, str] = field(default_factory=dict)


def _ignore(method: str) -> None:
    """Do nothing about a notification."""


async def ask(
    dialer: Dialer,
    to: Destination,
    message: Json,
    *,
    headers: Mapping[str, str],
    timeout_seconds: float,
    max_bytes: int,
    notified: Callable[[str], None] = _ignore,
) -> Reply:
    """Send a request and return its result.

    Args:
        dialer: the process's dialer.
        to: the MCP endpoint; its credential goes with the request and cannot be replaced by `headers`.
        message: the JSON-RPC request, with an id; or a notification, without one, whose result is empty.
        headers: the protocol's own.
        timeout_seconds: for everything.
        max_bytes: how much is read at most.
        notified: is told the methods of the notifications that come before the answer.

    Raises:
        EgressDenied, DialError, TooLarge: as the dialer says.
        HttpStatus: an error status (or a redirect, which is not followed).
        RpcError: a JSON-RPC error.
        Unreadable: anything else that is not the answer.
    """
    whole = message["method"] != LISTING
    async with dialer.exchange(
        "POST",
        to.url,
        private=to.private,
        headers={**headers, **ACCEPT, **to.headers},
        body=orjson.dumps(message),
        timeout_seconds=timeout_seconds,
    ) as answer:
        if answer.status >= 300:
            await _raise_error(answer)
        if "id" not in message:
            return Reply({}, answer.headers)
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            return Reply(_result(_load(await answer.read(max_bytes), whole=whole)), answer.headers)
        if kind == "text/event-stream":
            async for event in _events(answer, max_bytes, whole=whole):
                if "method" in event and "id" not in event:
                    notified(str(event["method"]))
                elif (response := _response_to(event, message["id"])) is not None:
                    return Reply(_result(response), answer.headers)
            raise Unreadable("the event stream ended without an answer")
        raise Unreadable("the answer is neither JSON nor an event stream")


async def _raise_error(answer: Answer) -> None:
    if answer.headers.get("Content-Type", "").lower().startswith("application/json"):
        try:
            _result(_load(await answer.read(MAX_ERROR_BYTES)))
        except RpcError as error:
            raise RpcError(error.code, error.text, error.data, status=answer.status) from None
        except Unreadable:
            pass
    raise HttpStatus(answer)


async def _events(answer: Answer, max_bytes: int, *, whole: bool) -> AsyncIterator[Json]:
    """Yield the JSON of each server-sent event."""
    rest, data = b"", []
    async for chunk in answer.chunks(max_bytes):
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                if any(data):
                    yield _load(b"\n".join(data), whole=whole)
                data = []


def _response_to(event: Json, request_id: int) -> Json | None:
    """Return the event if it answers the request, else None.

    Raises:
        Unreadable: the server asks something of us (sampling, elicitation), which is refused.
    """
    if "method" in event:
        raise Unreadable("the server asked for something in return, which is refused")
    return event if event.get("id") == request_id else None


def _result(response: Json) -> Json:
    error, result = response.get("error"), response.get("result")
    if isinstance(error, dict):
        code = error.get("code")
        raise RpcError(code if isinstance(code, int) else 0, str(error.get("message", "")), error.get("data"))
    if not isinstance(result, dict):
        raise Unreadable("the answer is no JSON-RPC response")
    return result


def _load(content: bytes, *, whole: bool = True) -> Json:
    """Read a message. Unless `whole`, its result may hold what cannot be written again, and nothing else of it."""
    try:
        value = strict_json(content, writable=whole)
        if not whole and isinstance(value, dict):
            canonical_json({key: item for key, item in value.items() if key != "result"})
    except (ValueError, TypeError) as error:
        raise Unreadable(f"the answer is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unreadable("the answer is not a JSON object")
    return value
