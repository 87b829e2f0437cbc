"""The syntax tree of a CEL expression: which names it reads, and two rewrites that make it safe to run.

The CEL library hands its tree out as protobuf bytes only. This module reads them (cel.expr.Expr in the wire format),
so that `expressions.py` can bind no more than what is referenced and `checks.py` can tell what is visible. It rewrites
the `map` and `filter` macros: a map has no order, so looping over one is an error, and the library's loops are
quadratic, so the list has a bound. And it rewrites what makes a map: one that holds an optional value kills the process
when the library makes Python of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

MAX_ITEMS = 1000
"""Items of a list that `map` or `filter` loops over, and of every list bound into an expression."""

TOO_MANY_ITEMS = "tooManyItems"
"""The function that a rewritten loop calls, with the size, when its list is too long. It must raise."""

WRAPPED = "wrappedValue"
"""The function that a rewritten map calls, with true, for an entry that is an optional value. It must raise."""

NAMESPACES = frozenset({"base64", "google", "math", "optional", "strings"})
TYPES = frozenset(
    {"bool", "bytes", "double", "int", "list", "map", "null_type", "optional_type", "string", "type", "uint"}
)

# cel.expr.Expr: which fields of which message hold which message. What is not named is carried through as it is.
_SHAPES: dict[str, dict[int, str]] = {
    "Expr": {3: "Constant", 4: "Ident", 5: "Select", 6: "Call", 7: "List", 8: "Struct", 9: "Loop"},
    "Constant": {},
    "Ident": {},
    "Select": {1: "Expr"},
    "Call": {1: "Expr", 3: "Expr"},
    "List": {1: "Expr"},
    "Struct": {2: "Entry"},
    "Entry": {3: "Expr", 4: "Expr"},
    "Loop": {2: "Expr", 4: "Expr", 5: "Expr", 6: "Expr", 7: "Expr"},
    "Any": {},
    "Checked": {4: "Expr"},
    "Parsed": {2: "Expr"},
}
_ROOT = {"Checked": 4, "Parsed": 2}
_STRING = 6  # of Constant
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_UNUSED, _RANGE, _ENTRY = "#unused", "@range", "@entry"


Fixed: TypeAlias = tuple[int, bytes]
Value: TypeAlias = "int | bytes | Fixed | Message"


@dataclass(slots=True)
class Message:
    """A protobuf message: its fields in their order, nested messages decoded."""

    fields: list[tuple[int, Value]]

    def get(self, number: int) -> Value | None:
        """Return the field's first value, if it is set."""
        return next((value for field, value in self.fields if field == number), None)

    def message(self, number: int) -> Message | None:
        """Return the nested message of this field, if it is set."""
        found = self.get(number)
        return found if isinstance(found, Message) else None

    def messages(self, number: int) -> list[Message]:
        """Return all nested messages of this field."""
        return [value for field, value in self.fields if field == number and isinstance(value, Message)]

    def text(self, number: int) -> str:
        """Return the field as text; empty when it is not set."""
        found = self.get(number)
        return found.decode() if isinstance(found, bytes) else ""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A name that an expression reads and the members it is read through: `steps`, `("topic", "output")`."""

    root: str
    members: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.root, *self.members))


def unpack(serialized: bytes) -> tuple[Message, str]:
    """Return the tree's envelope and its kind, `Checked` or `Parsed`, of what the library serialized."""
    envelope = _decode(serialized, "Any")
    kind = "Checked" if envelope.text(1).endswith("CheckedExpr") else "Parsed"
    payload = envelope.get(2)
    return _decode(payload if isinstance(payload, bytes) else b"", kind), kind


def pack(tree: Message, kind: str) -> bytes:
    """Return the bytes that the library reads back."""
    url = f"type.googleapis.com/cel.expr.{kind}Expr"
    return _encode(Message([(1, url.encode()), (2, _encode(tree))]))


def expression_of(tree: Message, kind: str) -> Message:
    """Return the Expr of an envelope."""
    return tree.message(_ROOT[kind]) or Message([])


def with_expression(tree: Message, kind: str, expr: Message) -> Message:
    """Return the envelope around another Expr."""
    return Message([(n, expr if n == _ROOT[kind] else value) for n, value in tree.fields])


def references(expr: Message) -> tuple[Reference, ...]:
    """Return what the expression reads, sorted; loop variables of macros are not part of it."""
    return tuple(sorted(set(_references(expr, frozenset()))))


def named_by(expr: Message) -> tuple[str, ...]:
    """Return the name and the members that an expression consists of; nothing when it does more than name a value."""
    path, select = path_of(expr), expr.message(5)
    if path is None or path[2] or path[0] in TYPES or path[0] in NAMESPACES or (select is not None and select.get(3)):
        return ()
    return (path[0], *path[1])


def presences(expr: Message) -> Iterator[Reference]:
    """Yield what `has` asks for."""
    select, path = expr.message(5), path_of(expr)
    if select is not None and select.get(3) and path is not None:
        yield Reference(path[0], path[1])
    for child in children(expr):
        yield from presences(child)


def bound_loops(expr: Message) -> None:
    """Rewrite, in place, every loop that builds a list: its range must be a list of at most MAX_ITEMS items."""
    for child in children(expr):
        bound_loops(child)
    loop = expr.message(9)
    if loop is None or not builds_a_list(loop):
        return
    loop.fields = [(n, _bounded(v) if n == 2 and isinstance(v, Message) else v) for n, v in loop.fields]


def unwrap_entries(expr: Message) -> None:
    """Rewrite, in place, every entry of a map: it must not be an optional value."""
    for child in children(expr):
        unwrap_entries(child)
    struct = expr.message(8)
    for entry in struct.messages(2) if struct is not None else ():
        optional = entry.get(5) == 1
        entry.fields = [
            (n, _unwrapped(v, optional) if n == 4 and isinstance(v, Message) else v) for n, v in entry.fields
        ]


def or_null(expr: Message) -> Message:
    """Return `expr.orValue(dyn(null))` for an expression whose value is optional."""
    return _or(expr, _call("dyn", _constant((1, 0))))


def children(expr: Message) -> Iterator[Message]:
    """Yield the expressions directly below one."""
    for number, kind in _SHAPES["Expr"].items():
        node = expr.message(number)
        if node is None:
            continue
        for holder in node.messages(2) if kind == "Struct" else [node]:
            shape = _SHAPES["Entry" if kind == "Struct" else kind]
            for field, value in holder.fields:
                if field in shape and isinstance(value, Message):
                    yield value


def _references(expr: Message, local: frozenset[str]) -> Iterator[Reference]:
    path = path_of(expr)
    if path is not None:
        root, members, indexes = path
        if root not in local and root not in TYPES and root not in NAMESPACES:
            yield Reference(root, members)
        for index in indexes:
            yield from _references(index, local)
        return
    loop = expr.message(9)
    if loop is None:
        for child in children(expr):
            yield from _references(child, local)
        return
    inner = local | {loop.text(1), loop.text(3), loop.text(8)}
    for number in (2, 4, 5, 6, 7):
        part = loop.message(number)
        if part is not None:
            yield from _references(part, local if number in (2, 4) else inner)


def path_of(expr: Message) -> tuple[str, tuple[str, ...], list[Message]] | None:
    """Return root, members and further index expressions when this is a chain of selects on a name."""
    ident = expr.message(4)
    if ident is not None:
        return ident.text(1).lstrip("."), (), []
    select, call = expr.message(5), expr.message(6)
    operand: Message | None = None
    member: str | None = None
    further: list[Message] = []
    if select is not None:
        operand, member = select.message(1), select.text(2)
    elif call is not None and call.text(2) in ("_[_]", "_[?_]", "_?._"):
        operand, index = call.messages(3)
        constant = index.message(3)
        if constant is not None and constant.get(_STRING) is not None:
            member = constant.text(_STRING)
        else:
            further = [index]
    if operand is None:
        return None
    path = path_of(operand)
    if path is None:
        return None
    root, members, indexes = path
    if indexes or member is None:  # what follows a computed index is below something that is read as a whole
        return root, members, indexes + further
    return root, (*members, member), []


def builds_a_list(loop: Message) -> bool:
    """Return whether a Loop is that of `map` or `filter`."""
    start = loop.message(4)
    return start is not None and start.message(7) is not None and loop.text(1) != _UNUSED


def _bounded(items: Message) -> Message:
    """Return `let r = items in size(r) <= MAX_ITEMS ? r + [] : tooManyItems(size(r))`; `map + []` is an error."""
    name = _ident(_RANGE)
    size = _call("size", name)
    check = _call("_<=_", size, _constant((3, MAX_ITEMS)))
    return _let(_RANGE, items, _call("_?_:_", check, _call("_+_", name, _list()), _call(TOO_MANY_ITEMS, size)))


def _unwrapped(value: Message, optional: bool) -> Message:
    """Return `let e = value in type(e) == type(optional.none()) ? wrappedValue(true) : e`.

    The value of an entry that is left out where it is none (`?'key'`) is an optional one; then what it holds is none.
    """
    if value.message(3) is not None:
        return value
    name = _ident(_ENTRY)
    held = _or(name, _call("dyn", _constant((3, 0)))) if optional else name
    wrapped = _call("_==_", _call("type", held), _call("type", _call("optional.none")))
    return _let(_ENTRY, value, _call("_?_:_", wrapped, _call(WRAPPED, _constant((2, 1))), name))


def _let(name: str, value: Message, body: Message) -> Message:
    """Return the body with a name for a value: a loop over nothing."""
    let: list[tuple[int, Value]] = [(1, _UNUSED.encode()), (2, _list()), (3, name.encode()), (4, value)]
    return Message([(9, Message([*let, (5, _constant((2, 0))), (6, _ident(name)), (7, body)]))])


def _constant(field: tuple[int, Value]) -> Message:
    return Message([(3, Message([field]))])


def _call(function: str, *arguments: Message) -> Message:
    return Message([(6, Message([(2, function.encode()), *((3, argument) for argument in arguments)]))])


def _or(optional: Message, otherwise: Message) -> Message:
    return Message([(6, Message([(1, optional), (2, b"orValue"), (3, otherwise)]))])


def _ident(name: str) -> Message:
    return Message([(4, Message([(1, name.encode())]))])


def _list() -> Message:
    return Message([(7, Message([]))])


def _decode(data: bytes, kind: str) -> Message:
    fields: list[tuple[int, Value]] = []
    shape, at = _SHAPES[kind], 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _read_varint(data, at)
            fields.append((number, value))
        elif wire == _BYTES:
            length, at = _read_varint(data, at)
            part, at = data[at : at + length], at + length
            fields.append((number, _decode(part, shape[number]) if number in shape else part))
        else:
            width = 8 if wire == _FIXED64 else 4
            fields.append((number, (wire, data[at : at + width])))
            at += width
    return Message(fields)


def _encode(message: Message) -> bytes:
    out = bytearray()
    for number, value in message.fields:
        if isinstance(value, int):
            out += _varint(number << 3 | _VARINT) + _varint(value)
        elif isinstance(value, tuple):
            out += _varint(number << 3 | value[0]) + value[1]
        else:
            part = _encode(value) if isinstance(value, Message) else value
            out += _varint(number << 3 | _BYTES) + _varint(len(part)) + part
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
