"""JSON from the API server that is nested too deep for Python, which anybody may put there who may create an object.

It is cut where nobody looks any more. What is left is still too deep for every check, so that it is refused as itself.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from fairlead.api.canonical import too_deep

DEEPEST = 400
"""Levels of what is cut to be read at all: more than anything that looks at it takes."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]')


def read(content: bytes) -> Any:
    """Return the JSON of an answer.

    Raises:
        orjson.JSONDecodeError: it is none.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return orjson.loads(cut(content))


def shallow(content: bytes) -> bytes:
    """Return JSON that has no more than DEEPEST levels, for who reads it with less care."""
    if content.count(b"[") + content.count(b"{") <= DEEPEST:
        return content
    try:
        deep = too_deep(orjson.loads(content), most=DEEPEST)
    except orjson.JSONDecodeError:
        deep = True
    return cut(content) if deep else content


def cut(content: bytes) -> bytes:
    """Return JSON with null for all that is nested deeper than DEEPEST."""
    kept, depth, done = [], 0, 0
    for token in _TOKEN.finditer(content):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == DEEPEST:
                kept.append(content[done : token.start()] + b"null")
        elif token[0] in (b"}", b"]"):
            if depth == DEEPEST:
                done = token.end()
            depth -= 1
    return b"".join([*kept, content[done:]])
