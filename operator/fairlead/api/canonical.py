"""Canonical JSON and digests: one byte form per value, so that digests can be compared."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import orjson

MAX_DEPTH = 64
"""Levels of nesting of what comes from outside. Our writer takes 254, and puts what it is given into something."""

MAX_SPEC_DEPTH = 200
"""Levels of nesting of what is declared: a value or a schema stands deep in it."""

_OPTIONS = orjson.OPT_SORT_KEYS


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, UTF-8, no spaces.

    Raises:
        TypeError: the value is not JSON (NaN, bytes, non-string keys, a lone surrogate).
    """
    return orjson.dumps(value, option=_OPTIONS)


def too_deep(value: Any, *, most: int = MAX_DEPTH) -> bool:
    """Tell whether a JSON value has more than so many levels of objects and lists."""
    level = [value]
    for _ in range(most + 1):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def strict_json(text: str) -> Any:
    """Parse JSON that every parser reads alike.

    Raises:
        ValueError: it is none, says a key twice, is nested too deep, or holds what `canonical_json` cannot write.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        canonical_json(value)
    except (RecursionError, TypeError):
        raise ValueError("nested too deep, a number over 64 bits, or half a character") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def digest(value: Any) -> str:
    """Return `sha256:<hex>` of the value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()
