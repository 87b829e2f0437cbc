"""block: run a named list of steps."""

from __future__ import annotations

from typing import Any

from fairlead.flow.steps.attempt import Attempt, Enter, Evaluator, Result, Setting


def inputs(definition: str, evaluator: Evaluator, setting: Setting) -> Any:
    """Return nothing: a block sees what is visible where it is called."""
    return None


def advance(definition: str, attempt: Attempt) -> Result | None:
    """Run the block; its output is the step's."""
    return Enter(definition, _same)


def _same(output: Any) -> Any:
    return output
