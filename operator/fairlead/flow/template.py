"""Text and values with `$( )`: where expressions stand inside a Workflow's strings.

`$( )` holds CEL and ends at the parenthesis that balances it outside CEL strings and comments; `$$(` is the literal
`$(`. What a segment gives is data: it is never parsed again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.flow.expressions import TOO_LARGE, ExpressionError, located, read
from fairlead.flow.values import MAX_VALUE_BYTES, in_mib, size_of

_OPEN = re.compile(r"\$\$\(|\$\(")
_TOKEN = re.compile(
    r"""
      //[^\n]*                                                            # a comment
    | (?:[rR][bB]?|[bB][rR])(?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n]*'|"[^"\n]*")  # raw strings know no escapes
    | [bB]?(?:'{3}(?:\\.|[^\\])*?'{3}|"{3}(?:\\.|[^\\])*?"{3})
    | [bB]?(?:'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    | \w+ | [()'"] | [^\w()'"/]+ | /
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Segment:
    """One `$( )`: the expression inside, and the character offset of its `$`."""

    expression: str
    offset: int


class Room:
    """What is left of the bytes that one evaluation may make: counted before they are put together."""

    def __init__(self) -> None:
        self._left = MAX_VALUE_BYTES

    def take(self, value: Any) -> Any:
        """Return a value that there is room for.

        Raises:
            ExpressionError: there is none; or the value is nested too deep.
        """
        try:
            self._left -= size_of(value)
        except ValueError as error:
            raise ExpressionError(str(error)) from None
        if self._left < 0:
            raise ExpressionError(
                f"with this the value has more than {in_mib(MAX_VALUE_BYTES)} as JSON", reason=TOO_LARGE
            )
        return value


@lru_cache(maxsize=1024)
def parse(text: str) -> tuple[str | Segment, ...]:
    """Return the literal parts and the segments of a text, in order; no literal part is empty.

    Raises:
        ExpressionError: a segment or a CEL string in it is not closed, or a segment is empty.
    """
    parts: list[str | Segment] = []
    literal: list[str] = []
    at = 0
    while (opening := _OPEN.search(text, at)) is not None:
        literal.append(text[at : opening.start()])
        at = opening.end()
        if opening[0] == "$$(":
            literal.append("$(")
            continue
        if any(literal):
            parts.append("".join(literal))
        literal = []
        end = _closing(text, opening)
        expression = text[at:end].strip()
        if not expression:
            raise ExpressionError(f"the $( at character {opening.start() + 1} holds no expression")
        parts.append(Segment(expression, opening.start()))
        at = end + 1
    literal.append(text[at:])
    if any(literal):
        parts.append("".join(literal))
    return tuple(parts)


def render(value: Any, scope: Mapping[str, Any], at: str = "", room: Room | None = None) -> Any:
    """Return a JSON value with every `$( )` in its strings evaluated; keys stay as they are.

    A string that is exactly one segment becomes that segment's value with its type.

    Args:
        value: what the Workflow says.
        scope: the values of the names in scope.
        at: the field where it stands, for errors.
        room: what may be made; all that one evaluation makes shares it.

    Raises:
        ExpressionError: a segment does not parse or has no value, or there is no room for it.
    """
    room = room or Room()
    match value:
        case str():
            parts = parse(value)
            if len(parts) == 1 and isinstance(parts[0], Segment):
                return _value(parts[0], scope, at, room)
            return _join(parts, scope, at, room)
        case Mapping():
            return {key: render(item, scope, at and f"{at}.{key}", room) for key, item in value.items()}
        case list() | tuple():
            return [render(item, scope, at and f"{at}[{index}]", room) for index, item in enumerate(value)]
    return value


def render_text(text: str, scope: Mapping[str, Any], at: str = "", room: Room | None = None) -> str:
    """Return the text with every `$( )` filled in: a string as is, null as nothing, else canonical JSON.

    Raises:
        ExpressionError: as `render`.
    """
    return _join(parse(text), scope, at, room or Room())


def expressions_in(value: Any) -> list[str]:
    """Return the expressions of every `$( )` in a JSON value, in the order of the text.

    Raises:
        ExpressionError: a segment does not parse.
    """
    match value:
        case str():
            return [part.expression for part in parse(value) if isinstance(part, Segment)]
        case Mapping():
            return [expression for item in value.values() for expression in expressions_in(item)]
        case list() | tuple():
            return [expression for item in value for expression in expressions_in(item)]
    return []


def whole_segment(value: Any) -> str | None:
    """Return the expression of a text that is exactly one `$( )`, None of any other value."""
    try:
        parts = parse(value) if isinstance(value, str) else ()
    except ExpressionError:
        return None
    return parts[0].expression if len(parts) == 1 and isinstance(parts[0], Segment) else None


def _closing(text: str, opening: re.Match[str]) -> int:
    """Return the offset of the parenthesis that closes a segment."""
    depth = 1
    for token in _TOKEN.finditer(text, opening.end()):
        match token[0]:
            case "(":
                depth += 1
            case ")":
                depth -= 1
                if depth == 0:
                    return token.start()
            case "'" | '"':
                raise ExpressionError(f"a string in the $( at character {opening.start() + 1} is not closed")
    raise ExpressionError(f"the $( at character {opening.start() + 1} is not closed; write $$( for a literal $(")


def _join(parts: tuple[str | Segment, ...], scope: Mapping[str, Any], at: str, room: Room) -> str:
    return "".join(part if isinstance(part, str) else _text(_value(part, scope, at, room)) for part in parts)


def _value(segment: Segment, scope: Mapping[str, Any], at: str, room: Room) -> Any:
    with located(at, segment.expression):
        return room.take(read(segment.expression, scope))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical_json(value).decode()
