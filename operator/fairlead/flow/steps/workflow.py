"""workflow: run another Workflow as a child. Its output is the step's output."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import ChildCall
from fairlead.flow.calls import CallKind
from fairlead.flow.steps.attempt import Attempt, Evaluator, Failed, Result, Setting, Succeeded


def inputs(definition: ChildCall, evaluator: Evaluator, setting: Setting) -> Any:
    """Return the child's input."""
    return evaluator.render(definition.input, "workflow.input")


def advance(definition: ChildCall, attempt: Attempt) -> Result | None:
    """Start the child and wait for its end."""
    call = attempt.ask(CallKind.WORKFLOW, definition.workflow, {"input": attempt.inputs}, label=attempt.given)
    if call is None:
        return None
    return Failed(call.error) if call.error else Succeeded(call.result)
