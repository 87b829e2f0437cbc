"""What ports are sent: JSON of a sane size, within a sane time, that every parser reads alike."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from fairlead.api.canonical import strict_json
from fairlead.engine.answers import Answer
from fairlead.engine.wellformed import problem

MAX_BYTES = 1 << 20
BODY_SECONDS = 10.0


async def read_json(request: Request) -> Any:
    """Return the JSON value that a request sends.

    Raises:
        Answer: 400, 408, 413 or 415 for what is none.
    """
    return parse_json(request, await read_body(request))


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        Answer: it is too large, too slow, or cut off.
    """
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise Answer(413, "TooLarge", f"at most {MAX_BYTES} bytes are allowed")
    except TimeoutError as error:
        raise Answer(408, "Timeout", f"the body did not come within {BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise Answer(400, "Invalid", "the body did not come to its end") from error
    return body


def parse_json(request: Request, body: bytes) -> Any:
    """Return the JSON value of a body.

    Raises:
        Answer: it is none, or said to be something else.
    """
    types = [said.partition(";")[0].strip().lower() for said in request.headers.getlist("content-type")]
    if types != ["application/json"]:
        raise Answer(415, "UnsupportedMediaType", "the body is application/json")
    try:
        value = strict_json(body)
    except ValueError as error:
        raise Answer(400, "Malformed", f"the body is no JSON: {error}") from error
    if found := problem(value):
        raise Answer(400, "Malformed", found)
    return value
