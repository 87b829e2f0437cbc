"""Schemas that can be used, values that fit them, and nothing that leaks or is fetched."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.flow.schema import MAX_FINDINGS, check_schema, findings

ANSWER = {
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string", "maxLength": 3, "pattern": "^a"},
        "sources": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "kind": {"enum": ["x", "y"]},
        "day": {"type": "string", "format": "date"},
        "map": {"propertyNames": {"maxLength": 2}},
    },
}


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "nope"}, "/type: is none of array, boolean"),
        ({"properties": {"a": {"minimum": "x"}}}, '/properties/a/minimum: is not of type "number"'),
        ({"properties": {"a": 5}}, '/properties/a: is not of types "boolean", "object"'),
        ({"pattern": "("}, "/pattern: "),
        ({"pattern": "(?=a)"}, "/pattern: "),
        (
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            "/$schema: only https://json-schema.org/draft/2020-12",
        ),
        ({"$ref": "#/nowhere"}, "Pointer '/nowhere' does not exist"),
        ({"enum": {1, 2}}, "not JSON"),
        ([], "a schema is an object"),
    ],
)
def test_a_schema_that_cannot_be_used_is_told_with_its_pointer(schema: Any, problem: str) -> None:
    found = check_schema(schema)

    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://169.254.169.254/latest"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "https://example.com/x"}}},
        {"$id": "http://example.com/", "$ref": "other"},
        {"$dynamicRef": "http://example.com/#a"},
    ],
)
def test_a_remote_reference_is_refused(schema: Any) -> None:
    assert ["remote references are refused" in problem for problem in check_schema(schema)] == [True]


@pytest.mark.parametrize("schema", [{}, ANSWER, {"$defs": {"a": {"type": "null"}}, "$ref": "#/$defs/a"}])
def test_a_schema_that_can_be_used_has_no_problems(schema: Any) -> None:
    assert check_schema(schema) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"text": "abc"}, []),
        ({}, ['"text" is a required property']),
        (5, ['is not of type "object"']),
        ({"text": "s3cr3t"}, ["/text: is longer than 3 characters", '/text: does not match "^a"']),
        ({"text": "a", "sources": []}, ["/sources: has less than 1 item"]),
        ({"text": "a", "sources": ["x", 1]}, ['/sources/1: is not of type "string"']),
        ({"text": "a", "kind": "s3cr3t"}, ['/kind: is not one of "x" or "y"']),
        ({"text": "a", "day": "s3cr3t"}, ['/day: is not a "date"']),
        ({"text": "a", "s3cr3t": 1}, ["has properties that the schema does not have"]),
        ({"text": "a", "map": {"s3cr3t": 1}}, ["/map: has a property whose name the schema does not allow"]),
        ({"text": "\ud800"}, ["the value is not JSON, or nested too deep"]),
        ({1: 2}, ["the value is not JSON, or nested too deep"]),
    ],
)
def test_findings_name_the_place_and_never_the_value(value: Any, found: list[str]) -> None:
    assert findings(ANSWER, value) == found


def test_findings_are_bounded() -> None:
    assert len(findings({"items": {"type": "string"}}, list(range(10_000)))) == MAX_FINDINGS


def test_a_pointer_escapes_its_parts() -> None:
    schema = {"properties": {"a/b~c": {"type": "null"}}}
    assert findings(schema, {"a/b~c": 1}) == ['/a~1b~0c: is not of type "null"']


@pytest.mark.requirement("A37")
def test_a_key_that_no_schema_names_is_a_value() -> None:
    schema = {"properties": {"map": {"additionalProperties": {"properties": {"n": {"type": "integer"}}}}}}
    assert findings(schema, {"map": {"s3cr3t": {"n": "x"}}}) == ['/map/*/n: is not of type "integer"']


def test_a_pattern_takes_linear_time() -> None:
    assert findings({"pattern": "^(a+)+$"}, "a" * 50_000 + "b") == ['does not match "^(a+)+$"']
