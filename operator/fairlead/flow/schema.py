"""JSON Schema: is a schema usable, and does a value fit it.

Schemas come from Workflows and Tools, values from users, models and tools. Nothing is ever fetched, patterns run in
linear time, and what is found names places and schema words but repeats no value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson

from fairlead.api.canonical import canonical_json

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_FINDINGS = 20
"""No more than these are told; the first ones say enough to correct a value."""

_MASK = "the value"
_ANY = "*"
_POINTER_LENGTH = 200


def check_schema(schema: Any) -> list[str]:
    """Return what is wrong with a schema, each with the JSON pointer into it; empty when it can be used."""
    if not isinstance(schema, Mapping):
        return ["a schema is an object"]
    if schema.get("$schema", DRAFT) not in (DRAFT, DRAFT + "#"):
        return [f"/$schema: only {DRAFT} is understood"]
    try:
        data = canonical_json(dict(schema))
    except TypeError:
        return ["the schema is not JSON, or nested too deep"]
    problems = dict.fromkeys(
        _problem(error) for error in islice(_meta_validator().iter_errors(orjson.loads(data)), MAX_FINDINGS)
    )
    if problems:
        return list(problems)
    try:
        _validator(data)
    except jsonschema_rs.ValidationError as error:
        return [_at(error.instance_path, _reference_problem(error.message))]
    except ValueError as error:
        return [str(error)]
    return []


def findings(schema: Mapping[str, Any], value: Any) -> list[str]:
    """Return where and how a value does not fit a schema that `check_schema` accepts; empty when it fits.

    At most MAX_FINDINGS are returned. The messages hold JSON pointers and the schema's own words, no values; a key that
    the schema does not name is one.
    """
    try:
        canonical = canonical_json(schema)
        errors = islice(_validator(canonical).iter_errors(value), MAX_FINDINGS)
        return [_finding(error, _names(canonical)) for error in errors]
    except (ValueError, TypeError):  # half a surrogate pair, keys that are no strings, nested too deep
        return ["the value is not JSON, or nested too deep"]


@lru_cache(maxsize=512)
def _validator(canonical: bytes) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(
        orjson.loads(canonical),
        offline=True,
        mask=_MASK,
        validate_formats=True,
        pattern_options=jsonschema_rs.RegexOptions(),
    )


@lru_cache(maxsize=1)
def _meta_validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({"$ref": DRAFT}, offline=True, mask=_MASK, validate_formats=True)


@lru_cache(maxsize=512)
def _names(canonical: bytes) -> frozenset[str]:
    """Return the properties that a schema names, at any depth."""
    found: set[str] = set()
    left: list[Any] = [orjson.loads(canonical)]
    while left:
        match left.pop():
            case dict(node):
                named = node.get("properties")
                found |= named.keys() if isinstance(named, dict) else set()
                left += node.values()
            case list(nodes):
                left += nodes
    return frozenset(found)


def _finding(error: jsonschema_rs.ValidationError, names: frozenset[str]) -> str:
    path = [part if isinstance(part, int) or part in names else _ANY for part in error.instance_path]
    if error.kind.name in ("additionalProperties", "unevaluatedProperties"):  # the library would name them
        return _at(path, "has properties that the schema does not have")
    if error.kind.name == "propertyNames":
        return _at(path, "has a property whose name the schema does not allow")
    return _at(path, error.message.removeprefix(_MASK + " "))


def _problem(error: jsonschema_rs.ValidationError) -> str:
    path = error.instance_path
    if path and path[-1] == "type":
        return _at(path, "is none of array, boolean, integer, null, number, object, string")
    return _at(path, error.message.removeprefix(_MASK + " "))


def _reference_problem(message: str) -> str:
    return "remote references are refused: " + message.split("'")[1] if message.startswith("Resource '") else message


def _at(path: Iterable[str | int], message: str) -> str:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return f"{pointer[:_POINTER_LENGTH]}: {message}" if pointer else message
