"""transform: compute a value. Its inputs are its output."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import Transform
from fairlead.flow.steps.attempt import Attempt, Evaluator, Result, Setting, Succeeded


def inputs(definition: Transform, evaluator: Evaluator, setting: Setting) -> Any:
    """Return the value."""
    return evaluator.render(definition.value, "transform.value")


def advance(definition: Transform, attempt: Attempt) -> Result | None:
    """Succeed with the value."""
    return Succeeded(attempt.inputs)
