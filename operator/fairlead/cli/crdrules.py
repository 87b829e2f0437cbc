"""The CRDs' own CEL rules, evaluated without an API server: the same text, so that lint and cluster agree.

Rules that compare with the object before (`oldSelf`) have nothing to compare with here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from fairlead.api.meta import CelRule, Resource
from fairlead.flow.checks import outline
from fairlead.flow.expressions import ExpressionError, evaluate_bool


def broken_rules(resource: Resource) -> Iterator[tuple[str, str]]:
    """Yield field path and message of every rule that does not hold."""
    yield from _rules("metadata", resource.cel, resource)
    for name in type(resource).model_fields:
        if name not in ("metadata", "status"):
            yield from _below(name, getattr(resource, name))


def _below(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from _rules(path, getattr(value, "cel", ()), value)
        for name, field in type(value).model_fields.items():
            if name in value.model_fields_set:
                yield from _below(f"{path}.{field.alias or name}", getattr(value, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _below(f"{path}[{index}]", item)


def _rules(path: str, rules: tuple[CelRule, ...], value: BaseModel) -> Iterator[tuple[str, str]]:
    wanted = [rule for rule in rules if "oldSelf" not in rule.rule]
    if not wanted:
        return
    written = outline(value.model_dump(by_alias=True, exclude_none=True, exclude_unset=True))
    for rule in wanted:
        try:
            holds = evaluate_bool(rule.rule, {"self": written})
        except ExpressionError:  # to the API server too, a rule without a value does not hold
            holds = False
        if not holds:
            yield path + (rule.field_path or ""), rule.message
