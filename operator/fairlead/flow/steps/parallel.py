"""parallel: run several blocks at the same time, until as many as must have succeeded."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import Parallel
from fairlead.flow.steps.attempt import Attempt, Evaluator, Fork, Result, Setting


def inputs(definition: Parallel, evaluator: Evaluator, setting: Setting) -> Any:
    """Return nothing: the blocks see what is visible where they are called."""
    return None


def advance(definition: Parallel, attempt: Attempt) -> Result | None:
    """Run the blocks; the step's output has a member for each."""
    return Fork(definition.needed)
