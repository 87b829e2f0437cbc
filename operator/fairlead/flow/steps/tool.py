"""tool: one function call. Its result is the step's output."""

from __future__ import annotations

from typing import Any

from fairlead.api.toolcall import ToolCall
from fairlead.flow.calls import CallKind
from fairlead.flow.steps.attempt import Attempt, Evaluator, Failed, Result, Setting, Succeeded


def inputs(definition: ToolCall, evaluator: Evaluator, setting: Setting) -> Any:
    """Return the arguments."""
    return evaluator.render(definition.arguments, "tool.arguments")


def advance(definition: ToolCall, attempt: Attempt) -> Result | None:
    """Call the function."""
    request = {"arguments": attempt.inputs}
    call = attempt.ask(CallKind.TOOL, definition.tool, request, function=definition.function, label=attempt.given)
    if call is None:
        return None
    return Failed(call.error) if call.error else Succeeded(call.result)
