"""What is known of an expression's type before it runs: CEL's own checker, told the types of what is read.

Only the static checks ask. What runs is compiled without types (expressions.py), where values of different types may
be compared, chosen between and put into one list; so only what is sure to fail when it runs is a complaint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from fairlead.flow.expressions import check_types
from fairlead.flow.shapes import TEXT, UNKNOWN, Shape, items_of, types_of
from fairlead.flow.syntax import Message
from fairlead.flow.wording import refused

_SIGNATURES = {"string": "string", "integer": "int", "boolean": "bool", "object": "map<string, dyn>"}
_SHAPES: Mapping[str, Shape] = {
    "BOOL": {"type": "boolean"},
    "INT": {"type": "integer"},
    "UINT": {"type": "integer"},
    "DOUBLE": {"type": "number"},
    "STRING": TEXT,
    "TIMESTAMP": TEXT,
    "DURATION": TEXT,
    "NULL": {"type": "null"},
    "LIST": {"type": "array"},
    "MAP": {"type": "object"},
}
_LEVELS = 4

_COMPLAINT = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_NO_OVERLOAD = re.compile(r"found no matching overload for '(\S+)' applied to '\((.*)\)'")
_NO_OPERAND = re.compile(r"expression of type '([^'*]+)' cannot be the (operand|range)")
_SURE = frozenset(
    {
        *("_+_", "_-_", "_*_", "_/_", "_%_", "-_", "!_", "_&&_", "_||_", "_<_", "_<=_", "_>_", "_>=_"),
        *("size", "contains", "startsWith", "endsWith", "matches", "split", "replace", "substring"),
        *("indexOf", "charAt", "lowerAscii", "upperAscii", "trim"),
    }
)
"""Functions that fail when they run, too, on what the checker refuses: they convert nothing."""
_NUMBERS = {"int", "uint", "double"}
_WANTED = {"boolean": "a condition must be true or false", "string": "a text is needed"}


def signature(shape: Shape, levels: int = _LEVELS) -> str:
    """Return the CEL type of a shape's values; `dyn` where the schema does not say it, and for numbers of any kind."""
    types = types_of(shape)
    if len(types) != 1:
        return "dyn"
    if types[0] == "array" and levels:
        return f"list<{signature(items_of(shape), levels - 1)}>"
    return _SIGNATURES.get(types[0], "dyn")


@lru_cache(maxsize=4096)
def judge(text: str, types: tuple[tuple[str, str], ...]) -> tuple[Shape, str]:
    """Return the shape of what an expression gives, as far as it is known, and why it is sure to fail, if it is.

    Args:
        text: an expression that compiles.
        types: the CEL types of the names and members that it reads, where they are known.
    """
    result, complaints, tree = check_types(text, types)
    if not complaints:
        return _shape(result), ""
    for line, column, complaint in _COMPLAINT.findall(complaints):
        if words := _sure(complaint, tree):
            return UNKNOWN, f"line {line}, column {column}: {words}"
    return judge(text, ()) if types else (UNKNOWN, "")


def unlike(shape: Shape, wanted: str) -> str:
    """Return that a value of this shape is of another type of JSON than what is wanted, if that is known."""
    types = types_of(shape)
    return f"{_WANTED[wanted]}; this is of type {' or '.join(types)}" if types and wanted not in types else ""


def _sure(complaint: str, tree: Message) -> str:
    """Return the complaint in our words if there is no way for it to do when it runs."""
    if found := _NO_OPERAND.search(complaint):
        return f"a value of type {found[1]} {'has no members' if found[2] == 'operand' else 'cannot be looped over'}"
    found = _NO_OVERLOAD.search(complaint)
    if found is None or found[1] not in _SURE or "*error*" in found[2]:
        return ""
    outer = found[2]
    while "(" in outer:
        outer = re.sub(r"\([^()]*\)", "", outer)
    kinds = outer.split(", ")
    if len(kinds) > 1 and (set(kinds) <= _NUMBERS or set(kinds) == {"list"}):
        return ""
    return refused(f"No matching overloads found : {found[1]}({outer})", tree)


def _shape(name: str) -> Shape:
    outer, _, inner = name.removesuffix(">").partition("<")
    shape = _SHAPES.get(outer, UNKNOWN)
    return {**shape, "items": _shape(inner)} if outer == "LIST" else shape
