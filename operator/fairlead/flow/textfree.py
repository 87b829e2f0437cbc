"""Which schemas let no text through: what fits one can tell a model nothing that the schema's author did not think of.

A value of enums, numbers and short ids carries a choice or a count, no instruction. That is what makes a `validate`
step an endorsement (labels.py). Pure, and closed: what is not known to be harmless is text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MOST_VALUES = 64
"""A list of many numbers is a text in disguise."""

LONGEST_ID = 36
"""As long as a UUID."""

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


def is_text_free(schema: Any) -> bool:
    """Tell whether no value that fits a schema holds text that its author has not written.

    Accepted are `enum` and `const`; numbers, booleans and null; strings with an anchored `pattern` of characters
    without space and a `maxLength` of LONGEST_ID at most; closed objects (`additionalProperties: false`) and arrays
    with `maxItems` of these, of MOST_VALUES values in all. Nothing else: no references, no alternatives.
    """
    values = _values(schema)
    return values is not None and values <= MOST_VALUES


def _values(schema: Any) -> int | None:
    """Return how many values fit into one at most, None if there may be text."""
    if not isinstance(schema, Mapping):
        return None
    if "enum" in schema or "const" in schema:
        return 1
    types = schema.get("type")
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else []
    known = all(isinstance(name, str) and name in _OF for name in names)
    if not names or not known or not schema.keys() <= _NOTES.union({"type"}, *(_OF[name] for name in names)):
        return None
    counts = [_values_of(name, schema) for name in names]
    return None if None in counts else max(count for count in counts if count is not None)


def _values_of(name: str, schema: Mapping[str, Any]) -> int | None:
    match name:
        case "string":
            pattern, longest = schema.get("pattern"), schema.get("maxLength")
            is_short = isinstance(longest, int) and longest <= LONGEST_ID
            return 1 if is_short and isinstance(pattern, str) and _ID_PATTERN.fullmatch(pattern) else None
        case "array":
            each, most = _values(schema.get("items")), schema.get("maxItems")
            return each * most if each is not None and isinstance(most, int) else None
        case "object":
            if schema.get("additionalProperties") is not False:
                return None
            counts = [_values(one) for one in schema.get("properties", {}).values()]
            return None if None in counts else sum(count for count in counts if count is not None)
        case _:
            return 1
