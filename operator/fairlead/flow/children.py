"""Child runs, as the core sees them: what a call asks for, who waits for whom, and what a child's end is to its parent.

The intent of a call to a Workflow records the child's name and spec. So whoever makes the child - before a crash or
after it - makes the same one, and the name tells which call it answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from fairlead.api.policy import RunBudget
from fairlead.api.reasons import ErrorClass, RunReason
from fairlead.api.run import ParentLimits
from fairlead.api.workflow import Limits, Step, WorkflowSpec
from fairlead.flow.calls import Call, CallError
from fairlead.flow.journal import Draft, EntryKind, Path, RunUid
from fairlead.flow.labels import TRUSTED, Label, written
from fairlead.flow.left import left_of
from fairlead.flow.paths import FINALLY
from fairlead.flow.plan import Plan
from fairlead.flow.runstate import CallState, RunState
from fairlead.flow.spending import parse_usd

COST = "cost_usd"
_MESSAGE_CHARACTERS = 1000

_CLASSES = {
    RunReason.DENIED: ErrorClass.DENIED,
    RunReason.BUDGET_EXCEEDED: ErrorClass.BUDGET_EXCEEDED,
    RunReason.TIMEOUT: ErrorClass.TIMEOUT,
    RunReason.OUTCOME_UNKNOWN: ErrorClass.OUTCOME_UNKNOWN,
    RunReason.CANCELLED: ErrorClass.CANCELLED,
    RunReason.INVALID_INPUT: ErrorClass.INVALID,
    RunReason.INVALID_WORKFLOW: ErrorClass.INVALID,
    RunReason.WORKFLOW_NOT_FOUND: ErrorClass.INVALID,
    RunReason.STATE_LOST: ErrorClass.INTERNAL,
    RunReason.NONDETERMINISM: ErrorClass.INTERNAL,
}
"""What a child's end is to the step that ran it; a child that failed otherwise is a ToolError."""


def child_workflows(step: Step) -> Iterator[str]:
    """Yield the Workflows that a step may run as children."""
    if step.workflow is not None:
        yield step.workflow.workflow
    for offered in step.agent.tools if step.agent is not None else ():
        if offered.workflow is not None:
            yield offered.workflow


def workflows_of(spec: WorkflowSpec) -> set[str]:
    """Return the Workflows that the runs of a Workflow may have as children."""
    steps = [*spec.steps, *(step for block in spec.blocks for step in block.steps)]
    return {name for step in steps for name in child_workflows(step)}


def child_name(run_uid: RunUid, call: Call) -> str:
    """Return the name of the run that a call starts: the same whenever it is asked for.

    A new attempt of the step is a new call and gets a new child: a run that has ended never runs again.
    """
    place = f"{run_uid}|{call.id.path}|{call.id.attempt}|{call.id.index}"
    return f"{call.target}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def child_spec(limits: Limits, state: RunState, call: Call, *, now_ms: int) -> dict[str, Any]:
    """Return the spec of the WorkflowRun that a call starts; its bounds are what the parent has left of its limits now.

    Children that run at the same time each get what is left at their start; what they used counts when they end.
    """
    accepted = state.accepted
    assert accepted is not None
    deadline_ms = min(accepted.deadline, call.deadline_ms or accepted.deadline)
    left = left_of(limits, state.usage)
    left |= {
        "timeoutSeconds": max(1, (deadline_ms - now_ms) // 1000),
        "steps": max(0, limits.steps - state.usage.steps),
        "toolCalls": max(0, left["toolCalls"] - 1),  # this very call
        "depth": max(0, limits.depth - 1),
    }
    parent = {
        "name": accepted.name,
        "uid": state.run_uid,
        "path": call.id.path,
        "attempt": call.id.attempt,
        "index": str(call.id.index),
        "limits": left,
    } | written(call.label)
    requested_by = {"requestedBy": accepted.requested_by} if accepted.requested_by else {}
    return {"workflow": call.target, "input": call.request["input"], "parent": parent} | requested_by


def bounded(plan: Plan, parent: Mapping[str, Any] | None) -> Plan:
    """Return the plan within what the parent (as it was frozen at acceptance) had left; without one as it is."""
    if parent is None:
        return plan
    return replace(plan, limits=narrowed(plan.limits, ParentLimits.model_validate(parent["limits"])))


def narrowed(limits: Limits, bound: ParentLimits | RunBudget) -> Limits:
    """Return limits within others, of which some may be open."""
    both = {name: (getattr(limits, name), getattr(bound, name)) for name in type(bound).model_fields}
    costs = [str(cost) for cost in both.pop(COST) if cost is not None]
    counts = {name: min(mine, other) for name, (mine, other) in both.items() if other is not None}
    return limits.model_copy(update=counts | {COST: min(costs, key=parse_usd, default=None)})


def awaited(state: RunState) -> frozenset[str]:
    """Return the names of the child runs that a run waits for; one that closes waits for those of `finally` alone."""
    if state.terminal is not None:
        return frozenset()
    here = FINALLY if state.closing is not None else ""
    calls = (state.steps[path].calls[index] for path, index in state.open_calls if path.startswith(here))
    return frozenset(call.child.name for call in calls if call.child is not None)


def waits_only_for_children(state: RunState) -> bool:
    """Tell whether there are open calls, and all of them are children that have been made."""
    calls = [state.steps[path].calls[index] for path, index in state.open_calls]
    return bool(calls) and all(call.child is not None and call.child.uid for call in calls)


def child_outcome(path: Path, attempt: int, call: CallState, ended: RunState) -> Draft:
    """Return the outcome of a call whose child has ended. What the child used counts as the parent's from here on."""
    end, child, used = ended.terminal, call.child, ended.usage
    assert end is not None and child is not None
    data: dict[str, Any] = {
        "index": call.index,
        "durationMs": (ended.finished_at or 0) - ended.started_at if ended.started_at else 0,
        "usage": {
            "inputTokens": used.input_tokens,
            "outputTokens": used.output_tokens,
            "modelCalls": used.model_calls,
            "toolCalls": used.tool_calls,
            "steps": used.steps,
        }
        | ({"cost": used.cost} if used.cost else {}),
    }
    if end.kind is EntryKind.RUN_SUCCEEDED:
        done = {"status": "Succeeded", "result": end.output} | written(end.label)
        return Draft(EntryKind.CALL_OUTCOME, path, attempt, data | done)
    message = f"run {child.name}: {end.message or end.reason}"[:_MESSAGE_CHARACTERS]
    error = CallError(_class_of(end.reason).value, end.reason, message)
    label = reduce(Label.join, (step.label for step in ended.steps.values()), TRUSTED)
    failed = {"status": "Failed", "error": error.as_data()} | written(label)
    return Draft(EntryKind.CALL_OUTCOME, path, attempt, data | failed)


def is_child_of(spec: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tell whether the spec of a run that exists is the one that is wanted: the child of the very same call."""
    mine, its = wanted["parent"], spec.get("parent") or {}
    return spec.get("workflow") == wanted["workflow"] and all(
        its.get(key) == mine[key] for key in ("uid", "path", "attempt", "index")
    )


def _class_of(reason: str) -> ErrorClass:
    return next((found for known, found in _CLASSES.items() if known == reason), ErrorClass.TOOL_ERROR)
