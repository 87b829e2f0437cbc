"""What fits a schema that is text-free cannot tell a model to do anything."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.flow.schema import check_schema, findings
from fairlead.flow.textfree import LONGEST_ID, MOST_CHARACTERS, MOST_VALUES, is_text_free, room_for_text

ID = {"type": "string", "pattern": "^[A-Z]{2,4}-[0-9]+$", "maxLength": 12}
WORD = {"type": "string", "pattern": "^[A-Za-z0-9@.-]+$", "maxLength": LONGEST_ID}
STARS = {"type": "integer", "minimum": 1, "maximum": 5}


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


FREE: dict[str, Any] = {
    "a choice": {"enum": ["billing", "technical support, please"]},
    "one value": {"const": "whatever its author wrote"},
    "a choice of a type": {"type": "string", "enum": ["a", "b"]},
    "a number": {"type": "number", "minimum": 0, "title": "a note"},
    "a number or nothing": {"type": ["integer", "null"]},
    "a word of truth": {"type": "boolean"},
    "an id": ID,
    "a uuid": {"type": "string", "pattern": r"^[0-9a-f]{8}(-)?[0-9a-f]+$".replace("(-)?", "-?"), "maxLength": 36},
    "a version": {"type": "string", "pattern": r"^\d+[.]\d+$", "maxLength": 20},
    "a closed object": closed(topic={"enum": ["a", "b"]}, score={"type": "integer"}) | {"required": ["topic"]},
    "a list with an end": {"type": "array", "items": ID, "maxItems": 6},
    "two ids": closed(order=WORD, customer=WORD),
    "an id and numbers": closed(order=WORD, price={"type": "number"}, weight={"type": "number"}, count=STARS),
    "a list of choices": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": MOST_VALUES},
    "a list of small numbers": {"type": "array", "items": STARS, "maxItems": MOST_VALUES},
    "a list of nothing": {"type": "array", "items": WORD, "maxItems": 0},
    "an empty object": {"type": "object", "additionalProperties": False},
}
TEXT: dict[str, Any] = {
    "anything": {},
    "a string": {"type": "string"},
    "a short string": {"type": "string", "maxLength": 10},
    "a pattern without an end": {"type": "string", "pattern": "^[a-z]+", "maxLength": 10},
    "a pattern without a beginning": {"type": "string", "pattern": "[a-z]+$", "maxLength": 10},
    "a pattern of anything": {"type": "string", "pattern": "^.*$", "maxLength": 10},
    "a pattern of what is no digit": {"type": "string", "pattern": r"^[^0-9]+$", "maxLength": 10},
    "a pattern with space": {"type": "string", "pattern": r"^[a-z ]+$", "maxLength": 10},
    "a pattern with any space": {"type": "string", "pattern": r"^\S+\s\S+$", "maxLength": 10},
    "an alternative": {"type": "string", "pattern": r"^a$|b", "maxLength": 10},
    "an id of any length": {"type": "string", "pattern": "^[a-z]+$"},
    "a long id": {"type": "string", "pattern": "^[a-z]+$", "maxLength": LONGEST_ID + 1},
    "a format": {"type": "string", "format": "email", "maxLength": 30},
    "a string or nothing": {"type": ["string", "null"]},
    "an open object": {"type": "object", "properties": {"n": {"type": "integer"}}},
    "names by a pattern": closed() | {"patternProperties": {"^x": {"type": "integer"}}},
    "a closed object with a text": closed(note={"type": "string"}),
    "a list without an end": {"type": "array", "items": {"type": "integer"}},
    "a list of anything": {"type": "array", "maxItems": 3},
    "a text as numbers": {"type": "array", "items": {"type": "integer"}, "maxItems": MOST_VALUES + 1},
    "a text as ids": {"type": "array", "items": WORD, "maxItems": MOST_VALUES},
    "a text as short ids": {"type": "array", "items": WORD | {"maxLength": 8}, "maxItems": 10},
    "a text as members": closed(**{f"word{number}": WORD for number in range(3)}),
    "a text as lists of ids": {"type": "array", "maxItems": 3, "items": closed(word=WORD)},
    "a text as numbers of any size": {"type": "array", "items": {"type": "integer"}, "maxItems": 10},
    "a text as the numbers of its letters": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 255},
        "maxItems": MOST_VALUES,
    },
    "a text as numbers with one bound": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "maxItems": MOST_VALUES,
    },
    "a text beside a list that takes it away": closed(
        less={"type": "array", "items": ID, "maxItems": -100}, words={"type": "array", "items": ID, "maxItems": 60}
    ),
    "properties that are none": {"type": "object", "additionalProperties": False, "properties": ["a"]},
    "a text as lists of numbers": {
        "type": "array",
        "maxItems": 9,
        "items": {"type": "array", "items": {"type": "integer"}, "maxItems": 9},
    },
    "a reference": {"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}},
    "alternatives": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "a schema that allows all": True,
    "an unknown type": {"type": "text"},
}


@pytest.mark.parametrize("schema", FREE.values(), ids=FREE)
def test_choices_numbers_and_ids_are_free_of_text(schema: Any) -> None:
    assert check_schema(schema) == []
    assert is_text_free(schema)


@pytest.mark.parametrize("schema", TEXT.values(), ids=TEXT)
def test_what_is_not_known_to_be_harmless_is_text(schema: Any) -> None:
    assert not is_text_free(schema)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": WORD, "maxItems": 3}, "hold 108 characters together, 72 are the most"),
        ({"type": "array", "items": {"type": "null"}, "maxItems": 65}, "65 values fit in, 64 are the most"),
        (closed(a=closed(note={"type": "string"})), "/properties/a/properties/note: a string needs an enum, or a max"),
        ({"type": "array", "items": ID}, "an array needs maxItems"),
        ({"type": "object", "properties": {}}, "an object needs its properties and additionalProperties: false"),
        ({"type": "integer", "format": "x", "anyOf": []}, "what fits anyOf, format is not looked at"),
        ({}, "give it an enum, or a type of"),
        (True, "anything fits"),
    ],
)
def test_where_there_is_room_for_text_it_is_said_where_and_what_would_be_right(schema: Any, words: str) -> None:
    assert words in room_for_text(schema)


LEAVES = st.sampled_from([WORD, WORD | {"maxLength": 5}, STARS, {"type": "integer"}, {"enum": ["a b c"]}])
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.integers(0, 9))
        | st.lists(inner, max_size=4).map(lambda found: closed(**{f"p{at}": one for at, one in enumerate(found)}))
    ),
    max_leaves=6,
)


def fullest(schema: dict[str, Any]) -> tuple[Any, int]:
    """Return the longest value that fits, and how many characters of its strings nobody has written beforehand."""
    match schema:
        case {"enum": [word, *_]}:
            return word, 0
        case {"type": "string"}:
            return "a" * schema["maxLength"], schema["maxLength"]
        case {"type": "array"}:
            value, characters = fullest(schema["items"])
            return [value] * schema["maxItems"], characters * schema["maxItems"]
        case {"type": "object"}:
            found = {key: fullest(one) for key, one in schema["properties"].items()}
            return {key: value for key, (value, _) in found.items()}, sum(more for _, more in found.values())
    return schema.get("maximum", 2**63), 0


@given(SCHEMAS)
def test_what_is_free_of_text_holds_two_ids_at_most(schema: dict[str, Any]) -> None:
    value, characters = fullest(schema)
    assert findings(schema, value) == []
    if is_text_free(schema):
        assert characters <= MOST_CHARACTERS


ATOMS = st.sampled_from(
    ["a", "Z", "7", "_", "-", ":", "/", "@", r"\d", r"\.", "[a-z]", "[A-Z0-9._-]", "[0-:]", "[--z]"]
)
QUANTIFIERS = st.sampled_from(["", "+", "*", "?", "{2}", "{1,3}", "{2,}"])
ODD = st.sampled_from(
    [".", "[^a]", r"\s", r"\S", r"\w", "(a)", "a|b", " ", r"\x20", "[ ]", r"[\s]", "^", "$", r"\n", "(?s)"]
)
SPACES = st.text(alphabet=st.characters(whitelist_categories=["Zs", "Cc"]), min_size=1, max_size=2)


@given(
    st.lists(st.tuples(ATOMS | ODD, QUANTIFIERS), min_size=1, max_size=6),
    st.text(max_size=8),
    SPACES,
    st.text(max_size=8),
)
def test_nothing_with_space_fits_a_pattern_that_is_taken_for_an_id(
    parts: list[tuple[str, str]], before: str, space: str, after: str
) -> None:
    schema = {"type": "string", "pattern": f"^{''.join(map(''.join, parts))}$", "maxLength": LONGEST_ID}
    if is_text_free(schema):
        assert findings(schema, before + space + after) != []
