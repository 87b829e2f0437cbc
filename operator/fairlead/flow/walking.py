"""What the parts of a walk say to each other: how a list of steps stands, and values that are evaluated once.

`body.py` walks lists and steps, `repeat.py`, `foreach.py` and `fork.py` what one step holds; all speak in these words.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Any

from fairlead.api.reasons import ErrorClass
from fairlead.errors import FairleadError, StepError
from fairlead.flow.calls import CallError
from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.expressions import TOO_LARGE
from fairlead.flow.labels import written
from fairlead.flow.state import BodyState, Evaluation, RunState
from fairlead.flow.steps.attempt import Failed, Succeeded
from fairlead.flow.values import MAX_RUN_BYTES, MAX_VALUE_BYTES, in_mib, size_of

CANCELLED = CallError(ErrorClass.CANCELLED.value, ErrorClass.CANCELLED.value, "the steps around it have ended")
NOTHING = BodyState()
"""How a list stands of which no step has started."""


class Drain(IntEnum):
    """Whether a part of a run goes on or comes to its end: then nothing starts and nothing new is asked for."""

    NO = 0
    WAIT = 1  # for all calls that are open
    CUT = 2  # for those only that do more than read: they keep their time to tell how they went


class Unfinished(Enum):
    """A body without a result."""

    PENDING = "something is open in it"
    DRAINED = "nothing is open in it any more, and nothing new was started"


BodyResult = Succeeded | Failed | Unfinished


class TooManySteps(FairleadError):
    """The run has started as many steps as `limits.steps` allows."""

    reason = "BudgetExceeded"


def evaluate(evaluator: PlaceEvaluator, evaluation: Callable[[PlaceEvaluator], Any]) -> Evaluation:
    """Return a value, or why there is none, with the label of what was read for it."""
    try:
        return Evaluation(evaluation(evaluator), label=evaluator.reads.label)
    except StepError as error:
        return Evaluation(error=expression_failed(error), label=evaluator.reads.label)


def expression_failed(error: StepError) -> CallError:
    """Return how a step fails whose expression has no value."""
    reason = error.reason if error.reason == TOO_LARGE else "ExpressionFailed"
    return CallError(ErrorClass.INVALID.value, reason, error.message)


def without_room(state: RunState, output: Any) -> CallError | None:
    """Return how a step fails whose output is too large for itself or for its run; None when it is not."""
    try:
        size = size_of(output)
    except ValueError as error:
        return CallError(ErrorClass.INVALID.value, TOO_LARGE, f"the step's output: {error}")
    if size > MAX_VALUE_BYTES:
        message = f"the step's output has more than {in_mib(MAX_VALUE_BYTES)} as JSON"
        return CallError(ErrorClass.INVALID.value, TOO_LARGE, message)
    if state.held_bytes + size > MAX_RUN_BYTES:
        message = f"the input and the outputs of the run's steps would have more than {in_mib(MAX_RUN_BYTES)} together"
        return CallError(ErrorClass.BUDGET_EXCEEDED.value, TOO_LARGE, message)
    return None


def evaluated(purpose: str, value: Evaluation) -> dict[str, Any]:
    """Return the data of an Evaluated entry."""
    data = {"purpose": purpose, "value": value.value} | written(value.label)
    return data | ({"error": value.error.as_data()} if value.error else {})
