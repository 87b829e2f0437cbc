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


def strict_json(text: str | bytes, *, writable: bool = True) -> Any:
    """Parse JSON that every parser reads alike. Whatever comes from outside is read by this.

    It takes two to nine times as long as a reader that asks less: some ten milliseconds for a MiB. Unless `writable`,
    what `canonical_json` cannot write may be in it: whoever takes parts of it must look at each.

    Raises:
        ValueError: it is no UTF-8, no JSON, says a key twice, is nested too deep, or holds what `canonical_json`
            cannot write. The message says what, without content.
    """
    try:
        text = text.decode() if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
        if writable:
            canonical_json(value)
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is wrong at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError as error:  # Python does not read integers of thousands of digits
        raise ValueError("it holds a number over 64 bits" if "digits" in str(error) else str(error)) from None
    except TypeError as error:
        raise ValueError(_unwritable(str(error))) from None
    return value


def _unwritable(said: str) -> str:
    """Return in our words why orjson does not write what was read."""
    if "ecursion" in said:
        return "it is nested too deep"
    return "it holds a number over 64 bits" if "64-bit" in said else "it holds half a character"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it says a key twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("it holds a number over 64 bits")
    return value


def _no_constant(word: str) -> Any:
    raise ValueError(f"it holds {word}")


def digest(value: Any) -> str:
    """Return `sha256:<hex>` of the value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()
