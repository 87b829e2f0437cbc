from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests.specimens import changed, specimen, status_of

from fairlead.api.crd import crd
from fairlead.api.crds import KINDS
from fairlead.api.meta import Resource
from fairlead.api.toolfunction import ToolFunction

DECLARED = [kind for kind in KINDS if kind is not ToolFunction]


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.crd.kind)
def test_an_object_says_the_same_after_reading_and_writing(kind: type[Resource]) -> None:
    obj = specimen(kind.crd.kind)
    read = kind.model_validate(copy.deepcopy(obj))
    assert yaml.safe_load(yaml.safe_dump(read.spec.to_yaml_dict())) == obj["spec"]


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.crd.kind)
def test_a_status_says_the_same_after_reading_and_writing(kind: type[Resource]) -> None:
    status = status_of(kind.crd.kind)
    read = kind.model_validate({**specimen(kind.crd.kind), "status": copy.deepcopy(status)})
    assert read.status.to_yaml_dict() == status
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert set(paths(schema)) - set(used(schema, status)) <= {"conditions.observedGeneration"}


@pytest.mark.parametrize("kind", DECLARED, ids=lambda kind: kind.crd.kind)
def test_the_specimens_use_every_field_but_the_alternatives(kind: type[Resource]) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    unused = set(paths(schema)) - set(used(schema, specimen(kind.crd.kind)["spec"]))
    assert {path for path in unused if not path.startswith(ALTERNATIVES)} == set()


# What excludes what a specimen has, or what it has elsewhere: the same model at another place.
ALTERNATIVES = (
    "inputFrom",
    "mcp.server",
    "endpoint",
    "credential",
    "functions.idempotency.argument",
    "steps.",
    "blocks.steps.",
    "defaults.retry.errorClasses",
)


def test_what_nobody_reads_is_refused_in_local_mode_too() -> None:
    for path in ("spec.surprise", "spec.mcp.surprise", "spec.functions.0.surprise"):
        with pytest.raises(ValidationError, match="surprise"):
            KINDS[2].model_validate(changed(specimen("Tool"), {path: 1}))


def test_null_is_no_value_where_one_is_required() -> None:
    for path in ("spec.steps.4.transform.value", "spec.steps.3.validate.value"):
        with pytest.raises(ValidationError, match="a value is required"):
            KINDS[0].model_validate(changed(specimen("Workflow"), {path: None}))


def test_a_step_knows_its_fields_as_python_and_as_yaml_names_them() -> None:
    from fairlead.api.workflow import Step

    step = Step.model_validate({"name": "a", "validate": {"value": 1, "schema": {"type": "object"}}})
    assert step.validate_ is not None
    assert step.validate_.schema_ == {"type": "object"}
    assert step.to_yaml_dict() == {"name": "a", "validate": {"value": 1, "schema": {"type": "object"}}}


def paths(schema: dict[str, Any], prefix: str = "") -> list[str]:
    """Every field below a schema; lists add nothing to a path."""
    schema = schema.get("items", schema)
    return [
        path
        for name, part in schema.get("properties", {}).items()
        for path in (f"{prefix}{name}", *paths(part, f"{prefix}{name}."))
    ]


def used(schema: dict[str, Any], value: Any, prefix: str = "") -> list[str]:
    """The fields that a value has."""
    if "items" in schema:
        return [path for part in value for path in used(schema["items"], part, prefix)]
    return [
        path
        for name, part in schema.get("properties", {}).items()
        if isinstance(value, dict) and name in value
        for path in (f"{prefix}{name}", *used(part, value[name], f"{prefix}{name}."))
    ]
