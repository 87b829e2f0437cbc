"""How much text an expression may make of the values that it reads, before it is evaluated.

The library bounds loops but not sizes: `t.replace('a', t)` makes the square of `t`, and an evaluation cannot be
stopped. So the tree is walked with the sizes of the bound values, and what might make too much is refused. What holds
a value many times, as `[t, t]` does, is small while it is evaluated and large when it becomes JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

from fairlead.flow.syntax import MAX_ITEMS, Message, builds_a_list, children, path_of
from fairlead.flow.values import MAX_VALUE_BYTES

MAX_MADE_BYTES = 64 * 1024 * 1024
"""All text and lists that one evaluation may make, results of its parts included."""

MAX_COPIED_BYTES = 2 * MAX_VALUE_BYTES
"""What a list or map that an expression builds may come to: bounds are rough, and more is refused for sure."""

_MAX_ITERATIONS = 10_000
_SCALAR = 8

_GROWING = frozenset(
    [
        "_+_",
        "replace",
        "join",
        "format",
        "split",
        "toJson",
        "fromJson",
        "get",
        "string",
        "bytes",
        "substring",
        "trim",
        "lowerAscii",
        "upperAscii",
        "reverse",
        "base64.encode",
        "base64.decode",
        "strings.quote",
    ]
)
_SCALAR_RESULTS = frozenset(
    [
        "size",
        "matches",
        "contains",
        "startsWith",
        "endsWith",
        "indexOf",
        "lastIndexOf",
        "charAt",
        "int",
        "double",
        "uint",
        "type",
        "hasValue",
        "@in",
        "_==_",
        "_!=_",
        "_<_",
        "_<=_",
        "_>_",
        "_>=_",
        "_&&_",
        "_||_",
        "!_",
    ]
)


class Size(NamedTuple):
    """At most so many bytes is the value, and so many are made on the way to it."""

    value: int
    made: int


Read = Callable[[tuple[str, ...]], int]
"""Returns the size of the bound value at a path."""


def grows(expr: Message) -> bool:
    """Return whether the expression makes text, lists or maps at all; most only look."""
    call = expr.message(6)
    made = call is not None and call.text(2) in _GROWING
    return made or _holds(expr) or any(grows(child) for child in children(expr))


def exceeded(expr: Message, data: Mapping[str, Any]) -> int:
    """Return the bound in bytes that an expression over these bound values may exceed, 0 when it cannot."""
    size = measure(expr, data)
    if size.made > MAX_MADE_BYTES:
        return MAX_MADE_BYTES
    return MAX_VALUE_BYTES if size.value > MAX_COPIED_BYTES and _builds(expr) else 0


def measure(expr: Message, data: Mapping[str, Any]) -> Size:
    """Return bounds for an expression over these bound values."""
    return _measure(expr, cache(partial(_read, data)), {})


def _holds(expr: Message) -> bool:
    return (expr.message(7) is not None or expr.message(8) is not None) and any(children(expr))


def _builds(expr: Message) -> bool:
    return _holds(expr) or any(_builds(child) for child in children(expr))


def _measure(expr: Message, data: Read, local: Mapping[str, int]) -> Size:
    path = path_of(expr)
    if path is not None:
        root, members, indexes = path
        made = sum(_measure(index, data, local).made for index in indexes)
        return Size(local[root] if root in local else data((root, *members)), made)
    constant, call, loop = expr.message(3), expr.message(6), expr.message(9)
    if constant is not None:
        return Size(1 + max((len(value) for _, value in constant.fields if isinstance(value, bytes)), default=0), 0)
    if loop is not None:
        return _loop(loop, data, local)
    if call is not None:
        return _call(call, data, local)
    parts = [_measure(child, data, local) for child in children(expr)]
    return Size(1 + sum(part.value for part in parts), sum(part.made for part in parts))


def _call(call: Message, data: Read, local: Mapping[str, int]) -> Size:
    parts = [_measure(part, data, local) for part in (*call.messages(1), *call.messages(3))]
    name, made = call.text(2), sum(part.made for part in parts)
    sizes = [part.value for part in parts]
    value = sum(sizes)
    if name in _SCALAR_RESULTS:
        return Size(_SCALAR, made)
    if name in ("_?_:_", "orValue", "or"):
        value = max(sizes)
    elif name == "replace" and len(sizes) > 2:
        value = sizes[0] + (sizes[0] + 1) * sizes[2]
    elif name == "join" and len(sizes) > 1:
        value = sizes[0] * (1 + sizes[1])
    elif name == "format":
        value = sizes[0] * 200 + sizes[1] * 2  # `%.999f` makes 1,000 characters of six
    return Size(value, made + (value if name in _GROWING or call.message(1) is not None else 0))


def _loop(loop: Message, data: Read, local: Mapping[str, int]) -> Size:
    """Bound a loop: what its body makes of all items together, and of nothing in every iteration.

    That holds because no function makes less of a whole than of its parts.
    """
    nothing = Message([])
    items = _measure(loop.message(2) or nothing, data, local)
    start = _measure(loop.message(4) or nothing, data, local)
    turns = min(items.value, MAX_ITEMS if builds_a_list(loop) else _MAX_ITERATIONS)
    value, made = start.value, items.made + start.made
    for number in (5, 6):
        body = loop.message(number) or nothing
        inner = {**local, loop.text(3): start.value}
        whole = _measure(body, data, {**inner, loop.text(1): items.value})
        empty = _measure(body, data, {**inner, loop.text(1): 1})
        value += whole.value + turns * empty.value
        made += whole.made + turns * empty.made
    result = _measure(loop.message(7) or nothing, data, {**local, loop.text(3): value})
    return Size(result.value, made + result.made)


def _read(data: Mapping[str, Any], path: tuple[str, ...]) -> int:
    value: Any = data
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            break
        value = value[part]
    return _bytes(value)


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return 1 + len(value) * (1 if value.isascii() else 4)
    if isinstance(value, Mapping):
        return 1 + sum(_bytes(key) + _bytes(item) for key, item in value.items())
    if isinstance(value, list):
        return 1 + sum(_bytes(item) for item in value)
    return 1  # so that a list is never smaller than the number of its items
