"""May a run begin? The rules of acceptance, as one pure function; `runs.py` does what it says.

A run waits for its Workflow to exist, to be Ready at its current generation and to be Authorized - the last two
usually for milliseconds. What cannot become right ends the run before it begins: RunRejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import find_condition
from fairlead.api.reasons import AcceptedReason, ReadyReason, RunReason
from fairlead.api.run import InputFrom, RetryFrom, WorkflowRunSpec
from fairlead.api.workflow import Workflow
from fairlead.engine.wellformed import problem
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.schema import findings
from fairlead.flow.template import render_text
from fairlead.policy.decision import Authorization

GRACE_MS = 30_000
"""How long a run waits for a Workflow that does not exist or is not authorized."""

INPUT_BYTES = 262_144
"""A larger input does not fit into a WorkflowRun."""

KEY_BYTES = 1024
"""The longest concurrency key."""

INPUT_FROM_BYTES = 1_048_576
"""Nor a larger one into a ConfigMap."""

_PASSING = (ReadyReason.ENGINE_NOT_READY, ReadyReason.PROGRESSING, ReadyReason.SERVER_NOT_READY)


@dataclass(frozen=True, slots=True)
class Accept:
    """The run begins with this Workflow as it stands now; `key` is its concurrency key."""

    workflow: Workflow
    value: Mapping[str, Any]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet. Look again when something changed, or at `until_ms` (Unix) at the latest."""

    reason: AcceptedReason
    message: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never: the run's first and last entry."""

    draft: Draft


@dataclass(frozen=True, slots=True)
class Resolve:
    """Everything else is right: read the input from there and judge again, with what came of it."""

    source: InputFrom | RetryFrom


Given = Mapping[str, Any] | Wait | Refuse
"""What came of reading `inputFrom` or `retryFrom`: an input, or why there is none."""


def judge(
    spec: WorkflowRunSpec,
    workflow: Workflow | None,
    authorization: Authorization | None,
    *,
    given: Given | None,
    busy: Callable[[Workflow, str], str],
    over: Callable[[Workflow], str],
    unsafe: Callable[[Workflow], str],
    seen_at_ms: int,
    now_ms: int,
    grace_ms: int = GRACE_MS,
) -> Accept | Wait | Refuse | Resolve:
    """Decide about one run.

    Args:
        spec: what is to run.
        workflow: the Workflow of that name, None if there is none.
        authorization: whether the Workflow's account has every permission that it names; None while not known.
        given: what came of reading `inputFrom` or `retryFrom`; None when that was not tried.
        busy: who stands in the way of one more run of a Workflow with a concurrency key; "" when nobody does.
        over: which Policy's budget of runs is used up; "" for none.
        unsafe: which Policy accepts no run because of where its data may go; "" for none.
        seen_at_ms: when the engine first saw the run.
        now_ms: Unix ms.
        grace_ms: how long to wait for what may still come.
    """
    until_ms = seen_at_ms + grace_ms
    if spec.desired_state == "Cancelled":
        return Refuse(Draft(EntryKind.RUN_CANCELLED, data={"message": "cancelled before it was accepted"}))
    if workflow is None:
        message = f"there is no Workflow {spec.workflow}"
        if now_ms >= until_ms:
            return refuse(RunReason.WORKFLOW_NOT_FOUND, message)
        return Wait(AcceptedReason.WORKFLOW_NOT_FOUND, message, until_ms)
    source = spec.input_from or spec.retry_from
    value = (spec.input or {}) if source is None else given
    known = value if isinstance(value, Mapping) else None
    return (
        _not_ready(workflow, until_ms if now_ms < until_ms else None)
        or _no_such_step(spec, workflow)
        or _bad_input(known, workflow, most=INPUT_BYTES if spec.input_from is None else INPUT_FROM_BYTES)
        or _not_authorized(authorization, until_ms if now_ms < until_ms else None)
        or _no_input(source, value)
        or _unsafe(unsafe(workflow))
        or _over_budget(over(workflow))
        or _turn(known or {}, workflow, busy)
    )


def is_ready(workflow: Workflow) -> bool:
    """Tell whether a Workflow is Ready at its current generation."""
    return _not_ready(workflow, None) is None


def refuse(reason: RunReason, message: str) -> Refuse:
    """Return the end of a run that never began."""
    return Refuse(Draft(EntryKind.RUN_REJECTED, data={"reason": reason.value, "message": message}))


def _not_ready(workflow: Workflow, until_ms: int | None) -> Wait | Refuse | None:
    name, generation = workflow.metadata.name, workflow.metadata.generation
    ready = find_condition(workflow.status.conditions if workflow.status else (), "Ready")
    if ready is None or ready.observed_generation != generation or ready.status == "Unknown":
        return Wait(AcceptedReason.WORKFLOW_NOT_READY, f"Workflow {name} is not checked at generation {generation} yet")
    if ready.status == "True":
        return None
    if ready.reason in _PASSING:
        return Wait(AcceptedReason.WORKFLOW_NOT_READY, f"Workflow {name}: {ready.reason}: {ready.message}")
    if ready.reason == ReadyReason.UNKNOWN_REFERENCE and until_ms is not None:  # what it names may be applied next
        return Wait(AcceptedReason.WORKFLOW_NOT_READY, f"Workflow {name}: {ready.reason}: {ready.message}", until_ms)
    return refuse(RunReason.INVALID_WORKFLOW, f"Workflow {name}: {ready.reason}: {ready.message}")


def _no_such_step(spec: WorkflowRunSpec, workflow: Workflow) -> Refuse | None:
    step = spec.retry_from.step if spec.retry_from is not None else None
    names = [known.name for known in workflow.spec.steps]
    if step is None or step in names:
        return None
    message = f"spec.retryFrom.step: Workflow {workflow.metadata.name} has no step {step}; it has {', '.join(names)}"
    return refuse(RunReason.INVALID_INPUT, message)


def _no_input(source: InputFrom | RetryFrom | None, value: Given | None) -> Wait | Refuse | Resolve | None:
    if isinstance(value, Wait | Refuse):
        return value
    return Resolve(source) if value is None and source is not None else None


def _bad_input(value: Mapping[str, Any] | None, workflow: Workflow, *, most: int) -> Refuse | None:
    if value is None:
        return None
    if found := problem(value, most=most):
        return refuse(RunReason.INVALID_INPUT, f"the input: {found}")
    schema = workflow.spec.input.schema_ if workflow.spec.input else None
    problems = findings(schema, value) if schema is not None else []
    return refuse(RunReason.INVALID_INPUT, "; ".join(problems)) if problems else None


def _not_authorized(authorization: Authorization | None, until_ms: int | None) -> Wait | Refuse | None:
    if authorization is None or authorization.verdict == "Unavailable":
        message = authorization.message if authorization else "permissions are being looked up"
        return Wait(AcceptedReason.NOT_AUTHORIZED, message)
    if authorization.verdict == "Allowed":
        return None
    if until_ms is None:
        return refuse(RunReason.DENIED, authorization.message)
    return Wait(AcceptedReason.NOT_AUTHORIZED, authorization.message, until_ms)


def _unsafe(found: str) -> Refuse | None:
    return refuse(RunReason.INVALID_WORKFLOW, f"DataFlowUnsafe: {found}") if found else None


def _over_budget(found: str) -> Refuse | None:
    return refuse(RunReason.BUDGET_EXCEEDED, found) if found else None


def _turn(value: Mapping[str, Any], workflow: Workflow, busy: Callable[[Workflow, str], str]) -> Accept | Refuse:
    concurrency = workflow.spec.concurrency
    if concurrency is None:
        return Accept(workflow, value)
    try:
        key = render_text(concurrency.key or "", {"input": value})
    except ExpressionError as error:
        return refuse(RunReason.INVALID_INPUT, f"spec.concurrency.key: {error.message}")
    if len(key.encode()) > KEY_BYTES:
        return refuse(RunReason.INVALID_INPUT, f"spec.concurrency.key: the value has more than {KEY_BYTES} bytes")
    others = busy(workflow, key) if concurrency.when_busy == "Reject" else ""
    return refuse(RunReason.REJECTED, others) if others else Accept(workflow, value, key)
