"""A JSON value whose strings may hold `$( )`, against a schema: what is known not to fit before anything runs.

What an expression will make is not known and never a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fairlead.flow.expressions import ExpressionError
from fairlead.flow.schema import check_schema, findings
from fairlead.flow.shapes import did_you_mean
from fairlead.flow.template import expressions_in

_REFERRING = ("$ref", "$dynamicRef")


def misfits(schema: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """Return why an object cannot fit a schema, whatever its expressions make. A wrong schema is no finding here."""
    if check_schema(schema):
        return []
    if not _computed(value):
        return findings(schema, value)
    return list(_known_misfits(schema, value))


def _known_misfits(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield f'"{name}" is a required property'
    for name, item in value.items():
        if name not in properties:
            if schema.get("additionalProperties") is False and "patternProperties" not in schema:
                yield f"there is no '{name}'; {did_you_mean(name, properties, 'it has')}"
        elif not _computed(item) and not _refers(properties[name]):
            yield from (f"/{name}: {finding}" for finding in findings({"allOf": [properties[name]]}, item))


def _computed(value: Any) -> bool:
    try:
        return bool(expressions_in(value))
    except ExpressionError:  # a finding of its own
        return True


def _refers(schema: Any) -> bool:
    """Tell whether a part of a schema looks at another part, which it would not find alone."""
    if isinstance(schema, Mapping):
        return any(key in _REFERRING or _refers(below) for key, below in schema.items())
    return isinstance(schema, list) and any(_refers(below) for below in schema)
