"""JSON values on their way into CEL and back: what the library would change or choke on is refused here.

The library cuts strings at NUL, has 64-bit integers only and no bound on lists; results must be JSON again.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.flow.syntax import MAX_ITEMS

MAX_DEPTH = 64
"""Levels of nesting of a value that an expression reads."""

MAX_READ_VALUES = 500_000
"""Members and items of all that an expression reads; each costs the library more memory than a long text."""

MAX_VALUE_DEPTH = 128
"""Levels of nesting of a value that is made or kept."""

MAX_VALUE_BYTES = 10 * 1024 * 1024
"""A value that is made, or that a step comes to, as canonical JSON."""

MAX_RUN_BYTES = 64 * 1024 * 1024
"""A run's input and the outputs of its steps together."""

_LEVELS = 254  # that the library writes
_SHELLS = _LEVELS - MAX_VALUE_DEPTH

_INT64 = 2**63


class Reading:
    """Counts what one expression reads."""

    def __init__(self) -> None:
        self._left = MAX_READ_VALUES

    def count(self, members: int) -> None:
        """Take note of what a list or a map holds.

        Raises:
            ValueError: it is too much.
        """
        self._left -= members
        if self._left < 0:
            raise ValueError(f"it holds more than {MAX_READ_VALUES} values")


def to_cel(value: Any, depth: int = 0, reading: Reading | None = None) -> Any:
    """Return a JSON value as the library takes it.

    Raises:
        ValueError: the value holds NUL, half a surrogate pair, NaN or infinity, an integer beyond 64 bits, a list of
            more than MAX_ITEMS items or too many values, is nested too deep, or is no JSON. The message holds no
            content.
    """
    reading = reading or Reading()
    match value:
        case None | bool():
            return value
        case str():
            return _text(value)
        case int():
            if not -_INT64 <= value < _INT64:
                raise ValueError("an integer does not fit into 64 bits")
            return int(value)
        case float():
            return _finite(value)
    if depth >= MAX_DEPTH:
        raise ValueError(f"a value is nested more than {MAX_DEPTH} levels deep")
    match value:
        case dict():
            reading.count(len(value))
            return {_text(key): to_cel(item, depth + 1, reading) for key, item in value.items()}
        case list() | tuple():
            if len(value) > MAX_ITEMS:
                raise ValueError(f"a list has more than {MAX_ITEMS} items")
            reading.count(len(value))
            return [to_cel(item, depth + 1, reading) for item in value]
    raise ValueError(f"a value of type {type(value).__name__} is not JSON")


def to_json(value: Any, depth: int = 0) -> Any:
    """Return what an expression made as JSON: keys sorted, timestamps as RFC 3339, durations as `1.5s`.

    Raises:
        ValueError: the value is bytes, a type, NaN or infinite, has keys that are not strings, or is nested too deep.
    """
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return _finite(value)
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return _seconds(value)
        case bytes() | bytearray():
            raise ValueError("bytes are not JSON; base64.encode makes text of them")
    if depth >= MAX_VALUE_DEPTH:
        raise ValueError(f"the value is nested more than {MAX_VALUE_DEPTH} levels deep")
    match value:
        case list():
            return [to_json(item, depth + 1) for item in value]
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("a map has keys that are not strings")
            return {key: to_json(value[key], depth + 1) for key in sorted(value)}
    raise ValueError("the value is a type, not JSON")


def size_of(value: Any) -> int:
    """Return the bytes of a value's canonical JSON. Levels cost nothing: the library counts them while it writes.

    Raises:
        ValueError: it is nested too deep, or no JSON.
    """
    for _ in range(_SHELLS):
        value = [value]
    try:
        return len(canonical_json(value)) - 2 * _SHELLS
    except TypeError as error:
        nested = "Recursion" in str(error)
        found = f"nested more than {MAX_VALUE_DEPTH} levels deep" if nested else "no JSON, or has a number over 64 bits"
        raise ValueError(f"the value is {found}") from None


def in_mib(size: int) -> str:
    """Return a bound as people read it."""
    return f"{size // 2**20} MiB"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a map has keys that are not strings")
    if "\0" in value:
        raise ValueError("a string holds the NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("a string holds half a surrogate pair") from None
    return str(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("a number is not finite")
    return float(value)


def _seconds(value: timedelta) -> str:
    micros = value // timedelta(microseconds=1)
    whole, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}{whole}{fraction}s"
