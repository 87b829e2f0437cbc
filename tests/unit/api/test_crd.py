"""What becomes of each thing that pydantic emits: one row each, and everything else is refused."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from fairlead.api.crd import SchemaProblem, crd, structural
from fairlead.api.crds import KINDS
from fairlead.api.meta import ATOMIC, EMIT_DEFAULT, LIST_SET, ApiModel, CelRule, Kind, PrinterColumn, Resource, list_map

Short = Annotated[str, Field(max_length=9)]


class Inner(ApiModel):
    """What is inside."""

    cel: ClassVar = (CelRule("self.name != 'x'", "not x", ".name"),)
    name: Annotated[Short, Field(description="Its name.")]


class Open(BaseModel):
    """Anything goes."""

    model_config = ConfigDict(extra="allow")


class Tree(ApiModel):
    """Contains itself."""

    left: Annotated[Tree | None, Field(description="The left one.")] = None


INNER = {
    "type": "object",
    "description": "What is inside.",
    "properties": {"name": {"type": "string", "maxLength": 9, "description": "Its name."}},
    "required": ["name"],
    "x-kubernetes-validations": [{"rule": "self.name != 'x'", "message": "not x", "fieldPath": ".name"}],
}
PRESERVE = {"x-kubernetes-preserve-unknown-fields": True}


def field(annotation: Any, default: Any = ..., **options: Any) -> tuple[dict[str, Any], bool]:
    """The structural schema of one field `f`, without its description, and whether it is required."""
    definition = (annotation, Field(default, **{"description": "D.", **options}))
    model = create_model("M", __base__=ApiModel, f=definition)
    schema = structural(model.model_json_schema(by_alias=True))
    result = schema["properties"]["f"]
    assert result.pop("description")
    return result, "f" in schema.get("required", ())


ROWS: list[tuple[str, Any, dict[str, Any], dict[str, Any]]] = [
    # what, annotation, field options, structural schema
    ("a reference is inlined", Inner, {}, {k: v for k, v in INNER.items() if k != "description"}),
    ("an optional loses null", int | None, {"default": None}, {"type": "integer", "format": "int64"}),
    ("an optional reference", Inner | None, {"default": None}, {k: v for k, v in INNER.items() if k != "description"}),
    (
        "an integer or string",
        int | str,
        {},
        {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    ),
    ("any JSON", Any, {}, PRESERVE),
    ("any JSON or nothing", Any, {"default": None}, {**PRESERVE, "nullable": True}),
    ("a free object", dict[str, Any], {}, {"type": "object", **PRESERVE}),
    (
        "a map of strings",
        dict[str, Short],
        {"max_length": 3},
        {"type": "object", "additionalProperties": {"type": "string", "maxLength": 9}, "maxProperties": 3},
    ),
    ("an open model", Open, {}, {"type": "object", "properties": {}, **PRESERVE}),
    (
        "a set",
        set[Short],
        {"max_length": 3},
        {
            "type": "array",
            "items": {"type": "string", "maxLength": 9},
            "maxItems": 3,
            "x-kubernetes-list-type": "set",
        },
    ),
    (
        "a list of any JSON",
        list[Any],
        {"max_length": 3, "json_schema_extra": ATOMIC},
        {"type": "array", "items": {**PRESERVE, "nullable": True}, "maxItems": 3, "x-kubernetes-list-type": "atomic"},
    ),
    (
        "a list by key",
        list[Inner],
        {"max_length": 3, "json_schema_extra": list_map("name")},
        {
            "type": "array",
            "items": INNER,
            "maxItems": 3,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
        },
    ),
    ("one literal", Literal["a"], {}, {"type": "string", "enum": ["a"]}),
    ("literals", Literal["a", "b"], {}, {"type": "string", "enum": ["a", "b"]}),
    (
        "more than",
        int,
        {"gt": 0, "lt": 5},
        {
            "type": "integer",
            "format": "int32",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 5,
            "exclusiveMaximum": True,
        },
    ),
    ("a small integer", int, {"ge": 1, "le": 5}, {"type": "integer", "format": "int32", "minimum": 1, "maximum": 5}),
    ("a boolean", bool, {}, {"type": "boolean"}),
    ("noise", Short, {"title": "T", "examples": ["x"], "deprecated": True}, {"type": "string", "maxLength": 9}),
    ("a default", Short, {"default": "x"}, {"type": "string", "maxLength": 9}),
    (
        "a default that the server shall store",
        Short,
        {"default": "x", "json_schema_extra": {EMIT_DEFAULT: True}},
        {"type": "string", "maxLength": 9, "default": "x"},
    ),
    ("a pattern", Short, {"pattern": "^[a-z]+$"}, {"type": "string", "maxLength": 9, "pattern": "^[a-z]+$"}),
]


@pytest.mark.parametrize(("annotation", "options", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_has_a_counterpart_is_rewritten(annotation: Any, options: dict[str, Any], expected: Any) -> None:
    schema, required = field(annotation, **options)
    assert schema == expected
    assert required == ("default" not in options)


def test_words_of_a_field_go_before_those_of_its_type_and_stand_on_one_line() -> None:
    model = create_model("M", __base__=ApiModel, f=(Inner | None, Field(None, description="Two\n  lines.")))
    assert structural(model.model_json_schema())["properties"]["f"]["description"] == "Two lines."


REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("a model inside itself", Tree, {}, r"f\.left: .*contains itself"),
    ("a union", Inner | Open, {}, "f: a union"),
    ("a decimal", Decimal, {}, "f: a union"),
    ("a float", float, {}, "f: type number"),
    ("a tuple", tuple[int, int], {}, "f: .*prefixItems"),
    ("literals of two types", Literal["a", 1], {}, "f: an enum of several types"),
    ("a duration", timedelta, {}, "f: format duration"),
    ("bytes", bytes, {}, "f: format binary"),
    ("a string without bound", str, {}, "f: a string without maxLength"),
    ("a list without bound", list[int], {"json_schema_extra": ATOMIC}, "f: a list without maxItems"),
    ("a list of no type", list[int], {"max_length": 3}, "f: a list without x-kubernetes-list-type"),
    (
        "a list by a key that may be absent",
        list[Inner],
        {"max_length": 3, "json_schema_extra": list_map("other")},
        "f: the keys of a list-map",
    ),
    ("a map without bound", dict[str, Short], {}, "f: a map without maxProperties"),
    ("lookahead", Short, {"json_schema_extra": {"pattern": "^(?!x)"}}, "is no RE2"),
    ("lookbehind", Short, {"json_schema_extra": {"pattern": "(?<=x)a"}}, "is no RE2"),
    ("a backreference", Short, {"json_schema_extra": {"pattern": r"(a)\1"}}, "is no RE2"),
    ("a Python anchor", Short, {"json_schema_extra": {"pattern": r"a\Z"}}, "is no RE2"),
    ("an unknown keyword", Short, {"json_schema_extra": {"contentEncoding": "base64"}}, "cannot say contentEncoding"),
    (
        "rules here and there",
        Inner,
        {"json_schema_extra": {"x-kubernetes-validations": [{"rule": "true", "message": "m"}]}},
        "f: CEL rules both here and on the model",
    ),
    ("silence", int, {"description": ""}, "f: no description"),
    ("required and null", int | None, {}, "f: required and yet optional"),
]


@pytest.mark.parametrize(("annotation", "options", "words"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_would_be_lost_is_refused_with_its_place(annotation: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(SchemaProblem, match=words):
        field(annotation, **options)


class Sample(Resource):
    """A kind for these tests."""

    cel: ClassVar = (CelRule("has(self.spec)", "a spec"),)
    crd: ClassVar = Kind(
        kind="Sample",
        plural="samples",
        short_names=("smp",),
        columns=(PrinterColumn("Age", ".metadata.creationTimestamp", "date", priority=1, description="How old."),),
        name_max_length=50,
        selectable_fields=(".spec.name",),
    )
    spec: Inner
    status: Inner | None = None


def test_a_kind_becomes_a_definition() -> None:
    definition = crd(Sample)
    assert definition["metadata"] == {"name": "samples.fairlead.dev"}
    assert definition["spec"]["scope"] == "Namespaced"
    assert definition["spec"]["names"] == {
        "kind": "Sample",
        "listKind": "SampleList",
        "plural": "samples",
        "singular": "sample",
        "categories": ["fairlead"],
        "shortNames": ["smp"],
    }
    (version,) = definition["spec"]["versions"]
    assert (version["served"], version["storage"], version["subresources"]) == (True, True, {"status": {}})
    assert version["selectableFields"] == [{"jsonPath": ".spec.name"}]
    assert version["additionalPrinterColumns"] == [
        {
            "name": "Age",
            "type": "date",
            "jsonPath": ".metadata.creationTimestamp",
            "description": "How old.",
            "priority": 1,
        }
    ]
    root = version["schema"]["openAPIV3Schema"]
    assert root["description"] == "A kind for these tests."
    assert (root["properties"]["spec"], root["properties"]["status"]) == (INNER, INNER)
    assert root["properties"]["metadata"] == {"type": "object"}
    assert root["required"] == ["spec"]
    name_rule, own_rule = root["x-kubernetes-validations"]
    assert name_rule["rule"] == "self.metadata.name.size() <= 50 && !self.metadata.name.contains('.')"
    assert own_rule == {"rule": "has(self.spec)", "message": "a spec"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.crd.kind)
def test_every_rule_has_words_that_help(kind: type[Resource]) -> None:
    def rules(node: Any) -> list[dict[str, str]]:
        if isinstance(node, dict):
            own = node.get("x-kubernetes-validations", [])
            return [*own, *(rule for value in node.values() for rule in rules(value))]
        return [rule for value in node for rule in rules(value)] if isinstance(node, list) else []

    found = rules(crd(kind))
    assert found
    assert all(10 < len(rule["message"]) <= 200 and "\n" not in rule["message"] for rule in found)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.crd.kind)
def test_no_definition_holds_what_a_structural_schema_forbids(kind: type[Resource]) -> None:
    text = str(crd(kind))
    for word in ("$ref", "$defs", "'type': 'null'", "'title'", "'oneOf'", "'const'", "'uniqueItems'", "'number'"):
        assert word not in text


def test_sets_of_set_lists_say_so() -> None:
    schema, _ = field(list[Short], max_length=3, json_schema_extra=LIST_SET)
    assert schema["x-kubernetes-list-type"] == "set"
