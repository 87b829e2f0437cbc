"""The step kinds by their name in YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.flow.plan import StepPlan
from fairlead.flow.steps import (
    agent,
    approval,
    block,
    container,
    generate,
    parallel,
    route,
    tool,
    transform,
    validate,
    wait,
    workflow,
)
from fairlead.flow.steps.attempt import Attempt, Evaluator, Result, Setting


@dataclass(frozen=True, slots=True)
class StepKind:
    """The two functions of a kind; `attempt.py` says what they do."""

    inputs: Callable[[Any, Evaluator, Setting], Any]
    advance: Callable[[Any, Attempt], Result | None]


_KINDS: Mapping[str, StepKind] = {
    "generate": StepKind(generate.inputs, generate.advance),
    "agent": StepKind(agent.inputs, agent.advance),
    "tool": StepKind(tool.inputs, tool.advance),
    "route": StepKind(route.inputs, route.advance),
    "validate": StepKind(validate.inputs, validate.advance),
    "transform": StepKind(transform.inputs, transform.advance),
    "block": StepKind(block.inputs, block.advance),
    "workflow": StepKind(workflow.inputs, workflow.advance),
    "approval": StepKind(approval.inputs, approval.advance),
    "wait": StepKind(wait.inputs, wait.advance),
    "container": StepKind(container.inputs, container.advance),
    "parallel": StepKind(parallel.inputs, parallel.advance),
}


def of(plan: StepPlan) -> StepKind:
    """Return the kind of a step."""
    return _KINDS[plan.kind]
