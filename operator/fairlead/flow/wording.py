"""What an expression could not do, as people say it, where a function or an operator takes no values of these types.

The library names the function and the types. What would be right is told with a name of the expression itself, where
only one place in it can be meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fairlead.flow.syntax import Message, children, path_of

_REFUSED = re.compile(
    r"No matching overloads found : (?:\(([\w.]+)\)\.)?([^()\"'\s]{1,60})(?:\(([\w.<>, ]{0,120})\))?$", re.ASCII
)
_DOES = {
    "_+_": "cannot add {} and {}",
    "_-_": "cannot subtract {1} from {0}",
    "_*_": "cannot multiply {} by {}",
    "_/_": "cannot divide {} by {}",
    "_%_": "cannot take the remainder of {} by {}",
    "-_": "cannot negate {}",
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), "cannot compare {} and {} by size"),
    "@in": "`in` looks into a list or a map, and this is neither",
    **{f"{name}": f"{name.strip('_')} takes true or false only" for name in ("_&&_", "_||_", "!_")},
}
_TYPES = {
    "int64": "int",
    "uint64": "uint",
    "null_type": "null",
    "google.protobuf.Timestamp": "timestamp",
    "google.protobuf.Duration": "duration",
}
_CONVERSIONS = {("int", "double"): "double", ("uint", "double"): "double", ("uint", "int"): "int"}
_CONVERSIONS |= {(number, "string"): "string" for number in ("int", "uint", "double", "bool")}


def refused(failure: str, tree: Message) -> str:
    """Return what the library says of values that a function does not take, in our words; "" if it says no such thing.

    Args:
        failure: what it says.
        tree: the expression.
    """
    found = _REFUSED.search(failure)
    if found is None:
        return ""
    of, function, arguments = found.groups()
    types = [_TYPES.get(name, name) for name in (of, *(arguments or "").split(", ")) if name]
    words = _DOES.get(function)
    if words is None:
        return f"{function.removeprefix('math.@')}() does not take {' and '.join(types) or 'this'}"
    right = _right(function, types, tree) if len(types) == 2 else ""
    return words.format(*types) + (f"; write {right}" if right else "")


def _right(function: str, types: Sequence[str], tree: Message) -> str:
    """Return the conversion that is missing, at the name where it is missing if that is known."""
    for at, (own, other) in enumerate((types, types[::-1])):
        to = _CONVERSIONS.get((own, other))
        if to is not None and (to != "string" or function == "_+_"):
            return f"{to}({_name(function, at, tree) or f'the {own}'})"
    return ""


def _name(function: str, at: int, tree: Message) -> str:
    calls = [call for call in _calls(tree) if call.text(2) == function]
    path = path_of(calls[0].messages(3)[at]) if len(calls) == 1 else None
    return ".".join((path[0], *path[1])) if path is not None and not path[2] else ""


def _calls(expr: Message) -> Iterator[Message]:
    call = expr.message(6)
    if call is not None:
        yield call
    for child in children(expr):
        yield from _calls(child)
