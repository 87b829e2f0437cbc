"""From a pydantic model to a CustomResourceDefinition: pure, and loud about everything that would be lost.

Pydantic emits JSON Schema; a CRD wants a *structural* OpenAPI v3 schema with bounds that keep the cost of CEL rules
inside the API server's budget. What has an exact counterpart is rewritten, what is noise goes, and anything else
raises `SchemaProblem` with the place, so that a model cannot promise what the API server would not check.
`crds.py` lists the kinds and writes the files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fairlead.api import GROUP, VERSION
from fairlead.api.meta import EMIT_DEFAULT, CelRule, Resource

Schema = dict[str, Any]

_NOISE = {"title", "examples", "deprecated", "readOnly", "writeOnly", "default", EMIT_DEFAULT}
_KEPT = {
    "type", "description", "enum", "format", "pattern", "minLength", "maxLength", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "minProperties", "maxProperties",
    "items", "properties", "additionalProperties", "required", "nullable", "default", "anyOf",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-validations",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string",
}  # fmt: skip
_FORMATS = {"int32", "int64", "date-time", "byte"}
_RULES = "x-kubernetes-validations"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_NOT_RE2 = re.compile(r"\(\?(<?[=!]|P[=>]|>|\()|\\[1-9]|\\Z|[*+?}]\+")
_INT32_MAX = 2**31 - 1
_NULL = {"type": "null"}


class SchemaProblem(Exception):
    """A model says something that a CRD cannot, or forgets something that it must; `path` says where."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path or '(root)'}: {message}")


def crd(resource: type[Resource]) -> Schema:
    """Return the CustomResourceDefinition of a kind.

    Raises:
        SchemaProblem: its model cannot be said as a structural schema.
    """
    kind = resource.crd
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root(resource)},
    }
    if "status" in resource.model_fields:
        version["subresources"] = {"status": {}}
    if kind.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable_fields]
    if kind.columns:
        version["additionalPrinterColumns"] = [
            {"name": column.name, "type": column.type, "jsonPath": column.json_path}
            | ({"description": column.description} if column.description else {})
            | ({"priority": column.priority} if column.priority else {})
            for column in kind.columns
        ]
    names: Schema = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "categories": ["fairlead"],
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def structural(schema: Mapping[str, Any], path: str = "") -> Schema:
    """Return the structural schema for what `model_json_schema()` emitted (its `$defs` are inlined).

    Args:
        schema: pydantic's JSON Schema, by alias, in validation mode.
        path: where it stands, for error messages.

    Raises:
        SchemaProblem: see the module's docstring.
    """
    return _Inliner(schema.get("$defs", {})).convert(schema, path, ())


def _root(resource: type[Resource]) -> Schema:
    """The whole object: Kubernetes' own fields, the model's, and the rules on its name."""
    longest = resource.crd.name_max_length
    name_rule = CelRule(
        f"self.metadata.name.size() <= {longest} && !self.metadata.name.contains('.')",
        f"a name has at most {longest} characters and no dots",
    )
    emitted = resource.model_json_schema(by_alias=True, mode="validation")
    properties: Schema = {
        "apiVersion": {"type": "string", "description": "The version of this object's schema."},
        "kind": {"type": "string", "description": "The kind of this object."},
        "metadata": {"type": "object"},
    }
    for part in ("spec", "status"):
        if part in emitted["properties"]:
            properties[part] = structural({**emitted["properties"][part], "$defs": emitted["$defs"]}, part)
    return {
        "type": "object",
        "description": _one_line(emitted["description"]),
        "properties": properties,
        "required": [name for name in emitted.get("required", ()) if name == "spec"],
        _RULES: [rule.as_schema() for rule in (name_rule, *resource.cel)],
    }


class _Inliner:
    """Converts one emitted schema; knows its `$defs`."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def convert(self, emitted: Mapping[str, Any], path: str, inside: tuple[str, ...]) -> Schema:
        """Convert one node and what is below it; `inside` are the `$ref`s on the way, to find recursion."""
        schema = {key: value for key, value in emitted.items() if key != "$defs"}
        schema = self._without_null(schema, path)
        while "$ref" in schema:
            ref = schema.pop("$ref")
            if ref in inside:
                raise SchemaProblem(path, f"{ref} contains itself; a structural schema is finite")
            inside = (*inside, ref)
            definition = self._definitions[ref.removeprefix("#/$defs/")]
            if _RULES in schema.keys() & definition.keys():
                raise SchemaProblem(path, "CEL rules both here and on the model: one would be lost")
            schema = {**definition, **schema}
        keep_default = schema.get(EMIT_DEFAULT, False)
        schema = {key: schema[key] for key in schema if key not in _NOISE or (key == "default" and keep_default)}
        _rewrite_keywords(schema, path)
        if unknown := schema.keys() - _KEPT:
            raise SchemaProblem(path, f"a structural schema cannot say {', '.join(sorted(unknown))}")
        if "description" in schema:
            schema["description"] = _one_line(schema["description"])
        _check_type(schema, path)
        if "properties" in schema:
            schema["properties"] = {
                name: self._property(name, value, schema, f"{path}.{name}" if path else name, inside)
                for name, value in schema["properties"].items()
            }
        if schema.get("type") == "array":
            schema["items"] = self.convert(schema.get("items", {}), f"{path}[]", inside)
            _check_list(schema, path)
        if isinstance(schema.get("additionalProperties"), Mapping):
            schema["additionalProperties"] = self.convert(schema["additionalProperties"], f"{path}.*", inside)
        return schema

    def _property(
        self, name: str, emitted: Mapping[str, Any], parent: Schema, path: str, inside: tuple[str, ...]
    ) -> Schema:
        if _NULL in emitted.get("anyOf", ()) and name in parent.get("required", ()):
            raise SchemaProblem(path, "required and yet optional: give the field a default")
        schema = self.convert(emitted, path, inside)
        if not schema.get("description"):
            raise SchemaProblem(path, "no description: `kubectl explain` would say nothing")
        if name in parent.get("required", ()):
            schema.pop("nullable", None)
        return schema

    def _without_null(self, schema: Schema, path: str) -> Schema:
        """Turn `anyOf: [X, null]` (an optional field) into X; refuse other unions but int-or-string."""
        if "anyOf" not in schema:
            return schema
        options = [option for option in schema["anyOf"] if option != _NULL]
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        if len(options) == 1:
            return {**options[0], **rest}
        if sorted(option.get("type", "") for option in options) == ["integer", "string"]:
            return {**rest, "x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
        raise SchemaProblem(path, "a union: make its members optional fields with a CEL rule that exactly one is set")


def _rewrite_keywords(schema: Schema, path: str) -> None:
    """Say in OpenAPI v3.0 what JSON Schema 2020-12 says otherwise."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if len({type(value) for value in schema.get("enum", ())}) > 1:
        raise SchemaProblem(path, "an enum of several types")
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in schema and not isinstance(schema[bound], bool):
            schema[limit], schema[bound] = schema[bound], True
    if schema.pop("uniqueItems", False):
        schema["x-kubernetes-list-type"] = "set"
    if schema.get("additionalProperties") is True:
        del schema["additionalProperties"]
        schema[_PRESERVE] = True
    elif schema.get("additionalProperties") is False:
        del schema["additionalProperties"]  # pruning and strict field validation do it
    if "type" not in schema and "x-kubernetes-int-or-string" not in schema and schema.keys() <= {"description"}:
        schema |= {_PRESERVE: True, "nullable": True}  # any JSON, null included


def _check_type(schema: Schema, path: str) -> None:
    """Refuse what has no type, no bound or no meaning in a CRD; say an integer's width."""
    if "pattern" in schema and _NOT_RE2.search(schema["pattern"]):
        raise SchemaProblem(path, f"{schema['pattern']!r} is no RE2")
    if "format" in schema and schema["format"] not in _FORMATS:
        raise SchemaProblem(path, f"format {schema['format']} means something else to Kubernetes")
    match schema.get("type"):
        case "string":
            if "maxLength" not in schema and "enum" not in schema:
                raise SchemaProblem(path, "a string without maxLength or enum: CEL rules would cost too much")
        case "integer":
            small = schema.get("minimum", -_INT32_MAX - 1) >= -_INT32_MAX and schema.get("maximum", 2**32) <= _INT32_MAX
            schema.setdefault("format", "int32" if small else "int64")
        case "object":
            if not schema.keys() & {"properties", "additionalProperties", _PRESERVE}:
                schema["properties"] = {}
            if "additionalProperties" in schema and "maxProperties" not in schema:
                raise SchemaProblem(path, "a map without maxProperties")
            if "additionalProperties" in schema and "properties" in schema:
                raise SchemaProblem(path, "properties and a map at once")
        case "boolean" | "array":
            pass
        case None if _PRESERVE in schema or "x-kubernetes-int-or-string" in schema:
            pass
        case other:
            raise SchemaProblem(path, f"type {other}: use an integer, or a string for decimals")


def _check_list(schema: Schema, path: str) -> None:
    """Refuse a list that server-side apply could not merge or that has no end."""
    if "maxItems" not in schema:
        raise SchemaProblem(path, "a list without maxItems")
    match schema.get("x-kubernetes-list-type"):
        case "atomic" | "set":
            pass
        case "map":
            keys = set(schema.get("x-kubernetes-list-map-keys", ()))
            if not keys or keys - set(schema["items"].get("required", ())):
                raise SchemaProblem(path, "the keys of a list-map must be required fields of its items")
        case _:
            raise SchemaProblem(path, "a list without x-kubernetes-list-type: atomic, set or map")


def _one_line(text: str) -> str:
    return " ".join(text.split())
