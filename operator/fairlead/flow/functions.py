"""The functions that Fairlead adds to CEL: `toJson`, `fromJson` and `get`.

The library gives plain Python values in and takes plain values back; a ValueError becomes the expression's error, so
its message holds no content.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cel_expr_python import cel

from fairlead.api.canonical import canonical_json, strict_json
from fairlead.flow.syntax import MAX_ITEMS, TOO_MANY_ITEMS, WRAPPED
from fairlead.flow.values import to_cel, to_json

UNWRAP = "an optional value has to be unwrapped, for example with orValue"

NAMES = ("toJson", "fromJson", "get")

# An overload for `dyn` matches nothing at run time, so each type has its own.
_TYPES = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "uint": cel.Type.UINT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "null": cel.Type.NULL,
    "list": cel.Type.LIST,
    "map": cel.Type.MAP,
    "timestamp": cel.Type.TIMESTAMP,
    "duration": cel.Type.DURATION,
}


def declarations() -> list[cel.FunctionDecl]:
    """Return the functions for an environment."""
    return [
        _for_every_type("toJson", _to_json, cel.Type.STRING, []),
        _for_every_type("get", _get, cel.Type.DYN, [cel.Type.STRING]),
        cel.FunctionDecl(
            "fromJson", [cel.Overload("fromJson_string", cel.Type.DYN, [cel.Type.STRING], impl=_from_json)]
        ),
        cel.FunctionDecl(
            TOO_MANY_ITEMS, [cel.Overload(f"{TOO_MANY_ITEMS}_int", cel.Type.LIST, [cel.Type.INT], impl=_too_many)]
        ),
        cel.FunctionDecl(WRAPPED, [cel.Overload(f"{WRAPPED}_bool", cel.Type.DYN, [cel.Type.BOOL], impl=_wrapped)]),
    ]


def _for_every_type(name: str, impl: Callable[..., Any], result: cel.Type, further: list[cel.Type]) -> cel.FunctionDecl:
    overloads = [cel.Overload(f"{name}_{word}", result, [first, *further], impl=impl) for word, first in _TYPES.items()]
    return cel.FunctionDecl(name, overloads)


def _to_json(value: Any) -> str:
    try:
        return canonical_json(to_json(value)).decode()
    except TypeError:  # what orjson refuses beyond to_json: integers beyond 64 bits
        raise ValueError("toJson takes JSON only") from None


def _from_json(text: str) -> Any:
    try:
        value = strict_json(text)
    except ValueError as error:
        raise ValueError(f"fromJson takes JSON only: {error}") from None
    return to_cel(value)


def _get(value: Any, path: str) -> Any:
    """Return what stands at a dotted path; null when anything on the way is null or missing."""
    for part in path.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isascii() and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return to_cel(to_json(value))


def _wrapped(_is: bool) -> Any:
    raise ValueError(UNWRAP)


def _too_many(_size: int) -> Any:
    raise ValueError(f"a list has more than {MAX_ITEMS} items")
