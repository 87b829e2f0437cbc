"""Which schemas let no text through: what fits one can tell a model nothing that the schema's author did not think of.

A value of enums, numbers and short ids carries a choice or a count, no instruction. That is what makes a `validate`
step an endorsement (labels.py). Pure, and closed: what is not known to be harmless is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_VALUES = 64
"""A list of many values is a text in disguise."""

LONGEST_ID = 36
"""As long as a UUID."""

MOST_CHARACTERS = 2 * LONGEST_ID
"""What the strings and numbers of one value hold together: two ids, or one and four numbers. Many ids are a prompt."""

NUMBER_CHARACTERS = 8
"""So many letters 64 bits can spell; no number here has more."""

# Literals, digits and classes of characters without space, each perhaps with a quantifier; anchored at both ends.
_ID_PATTERN = re.compile(r"\^(?:(?:[A-Za-z0-9_:/@-]|\\[d.]|\[[A-Za-z0-9_.:/@-]+\])(?:[+*?]|\{\d+(?:,\d*)?\})?)+\$")
_NOTES = frozenset({"title", "description", "default", "examples", "$comment", "$schema", "deprecated"})
_OF = {
    "null": frozenset[str](),
    "boolean": frozenset[str](),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
    "array": frozenset({"items", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
}


_LOWEST, _HIGHEST = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

Room = tuple[int, int]
"""How many values fit into one at most, and how many characters of text they hold."""


def is_text_free(schema: Any) -> bool:
    """Tell whether no value that fits a schema holds text that its author has not written."""
    return not room_for_text(schema)


def room_for_text(schema: Any) -> str:
    """Return where a schema has room for text and what would be right; "" if it has none.

    Accepted are `enum` and `const`; numbers, booleans and null; strings with an anchored `pattern` of characters
    without space and a `maxLength` of LONGEST_ID at most; closed objects (`additionalProperties: false`) and arrays
    with `maxItems` of these, of MOST_VALUES values and MOST_CHARACTERS characters in all. Nothing else: no references,
    no alternatives.
    """
    try:
        values, characters = _room(schema, "")
    except _Text as found:
        return str(found)
    if values > MOST_VALUES:
        return f"{values} values fit in, {MOST_VALUES} are the most: lower maxItems"
    if characters > MOST_CHARACTERS:
        return (
            f"its strings and numbers hold {characters} characters together, {MOST_CHARACTERS} are the most (a string "
            f"its maxLength, a number {NUMBER_CHARACTERS}, an integer with minimum and maximum their digits): lower "
            "maxLength and maxItems, bound integers, or use enum"
        )
    return ""


class _Text(Exception):
    """There may be text; says where, and what would be right."""

    def __init__(self, at: str, message: str) -> None:
        super().__init__(f"{at}: {message}" if at else message)


def _room(schema: Any, at: str) -> Room:
    """Return the room of a schema.

    Raises:
        _Text: nobody knows how much there is.
    """
    if not isinstance(schema, Mapping):
        raise _Text(at, "anything fits: give it a type or an enum")
    if "enum" in schema or "const" in schema:
        return 1, 0
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    if not names or not all(isinstance(name, str) and name in _OF for name in names):
        raise _Text(at, f"give it an enum, or a type of {', '.join(_OF)}")
    if others := schema.keys() - _NOTES.union({"type"}, *(_OF[name] for name in names)):
        raise _Text(at, f"what fits {', '.join(sorted(others))} is not looked at: say it without, or use enum")
    rooms = [_room_of(name, schema, at) for name in names]
    return max(values for values, _ in rooms), max(characters for _, characters in rooms)


def _room_of(name: str, schema: Mapping[str, Any], at: str) -> Room:
    match name:
        case "string":
            pattern, longest = schema.get("pattern"), schema.get("maxLength")
            is_id = isinstance(pattern, str) and _ID_PATTERN.fullmatch(pattern)
            if not is_id or not isinstance(longest, int) or not 0 <= longest <= LONGEST_ID:
                raise _Text(
                    at,
                    f"a string needs an enum, or a maxLength of {LONGEST_ID} at most and a pattern from ^ to $ of "
                    "literals and classes without space",
                )
            return 1, longest
        case "array":
            most = schema.get("maxItems")
            if not isinstance(most, int) or most < 0:
                raise _Text(at, "an array needs maxItems")
            values, characters = _room(schema.get("items"), f"{at}/items")
            return values * most, characters * most
        case "object":
            properties = schema.get("properties", {})
            if schema.get("additionalProperties") is not False or not isinstance(properties, Mapping):
                raise _Text(at, "an object needs its properties and additionalProperties: false")
            rooms = [_room(one, f"{at}/properties/{key}") for key, one in properties.items()]
            return sum(values for values, _ in rooms), sum(characters for _, characters in rooms)
        case "integer":
            return 1, _digits(schema)
        case "number":
            return 1, NUMBER_CHARACTERS
        case _:
            return 1, 0


def _digits(schema: Mapping[str, Any]) -> int:
    """Return how many characters an integer counts as: the digits between its bounds, as far as it has both."""
    bounds = [[schema[key] for key in keys if isinstance(schema.get(key), int)] for keys in (_LOWEST, _HIGHEST)]
    digits = max(len(str(abs(bound))) for side in bounds for bound in side) if all(bounds) else NUMBER_CHARACTERS
    return min(digits, NUMBER_CHARACTERS)
