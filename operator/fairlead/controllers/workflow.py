"""Workflows: could a run of this be right at all. Nothing is built; the engine acts on `Ready` and the spec."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.api.conditions import find_condition
from fairlead.api.model import EMBEDDINGS
from fairlead.api.reasons import ReadyReason
from fairlead.api.workflow import Workflow, WorkflowSpec
from fairlead.controllers.children import is_reserved
from fairlead.controllers.plan import Object, Plan, Verdict, conditions_of, invalid, listed, parse
from fairlead.errors import InvalidSpec
from fairlead.flow.checks import check_workflow


def plan(
    obj: Object,
    *,
    models: Iterable[Object],
    tools: Iterable[Object],
    workflows: Iterable[Object],
    engine: Object | None,
) -> Plan:
    """Return the verdict on a Workflow.

    Args:
        obj: the Workflow.
        models: the Models of its namespace.
        tools: the Tools of its namespace.
        workflows: the Workflows of its namespace, itself included.
        engine: the namespace's Engine, if it is there.
    """
    try:
        workflow = parse(Workflow, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error))
    account = workflow.spec.service_account_name
    if account is not None and is_reserved(account):
        message = f"spec.serviceAccountName: {account} never runs a Workflow; name another account"
        return Plan(verdict=Verdict(False, ReadyReason.RESERVED_ACCOUNT, message, stalled=True))
    others = {other["metadata"]["name"]: other for other in workflows}
    apis = {model["metadata"]["name"]: _api(model) for model in models}
    findings = check_workflow(
        workflow.spec,
        models=apis,
        embedders=[name for name, api in apis.items() if api == EMBEDDINGS],
        tools={tool["metadata"]["name"]: _functions(tool) for tool in tools},
        workflows={name: _input_schema(other) for name, other in others.items()},
        specs=lambda name: _spec(others.get(name)),
        name=workflow.metadata.name,
    )
    if findings:
        reason = next((f.reason for f in findings if f.reason == ReadyReason.INVALID_SPEC), findings[0].reason)
        message = listed([f"{finding.path}: {finding.message}" for finding in findings])
        return Plan(verdict=Verdict(False, ReadyReason(reason), message, stalled=True))
    return Plan(verdict=_engine_verdict(engine))


def _engine_verdict(engine: Object | None) -> Verdict:
    """A Workflow that is right is Ready once there is an engine to run it."""
    if engine is None:
        return Verdict(False, ReadyReason.ENGINE_NOT_READY, "the namespace's engine is being made")
    ready = find_condition(conditions_of(engine), "Ready")
    current = ready is not None and ready.observed_generation == engine["metadata"].get("generation", 0)
    if ready is None or not current:
        return Verdict(False, ReadyReason.ENGINE_NOT_READY, "the operator has not looked at the Engine yet")
    if ready.status != "True":
        return Verdict(False, ReadyReason.ENGINE_NOT_READY, f"engine: {ready.message or ready.reason}")
    return Verdict(True, ReadyReason.READY, "can run")


def _api(model: Object) -> Any:
    spec = model.get("spec") or {}
    return next((spec[way].get("api") for way in ("endpoint", "server") if isinstance(spec.get(way), Mapping)), None)


def _functions(tool: Object) -> dict[str, Mapping[str, Any] | None]:
    functions = (tool.get("spec") or {}).get("functions")
    named = functions if isinstance(functions, list) else []
    return {str(one["name"]): _schema(one) for one in named if isinstance(one, Mapping) and "name" in one}


def _input_schema(workflow: Object) -> Mapping[str, Any] | None:
    return _schema(workflow.get("spec") or {})


def _schema(holder: Mapping[str, Any]) -> Mapping[str, Any] | None:
    given = holder.get("input")
    schema = given.get("schema") if isinstance(given, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _spec(workflow: Object | None) -> WorkflowSpec | None:
    """Return the spec of another Workflow. What is not well-formed runs nothing."""
    try:
        return parse(Workflow, workflow).spec if workflow is not None else None
    except InvalidSpec:
        return None
