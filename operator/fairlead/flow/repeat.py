"""repeat: how a step goes on from one iteration to the next.

The step and its iterations are steps of their own in the journal: `draft` holds `draft#1`, `draft#2`, ... An iteration
has the attempts, the step the handling of errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairlead.api.reasons import ErrorClass
from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.journal import EntryKind
from fairlead.flow.plan import StepPlan
from fairlead.flow.scope import Frame
from fairlead.flow.state import StepState
from fairlead.flow.steps.attempt import failed
from fairlead.flow.walking import CANCELLED, Drain, evaluate, evaluated

if TYPE_CHECKING:
    from fairlead.flow.body import Walk


def go_on(walk: Walk, frame: Frame, plan: StepPlan, step: StepState, *, deadline_ms: int, drain: Drain) -> None:
    """Follow the last iteration, or start the next one, or end the step."""
    number = step.iteration
    last = walk.state.steps.get(frame.path(plan.name, number)) if number else None
    before = walk.state.steps.get(frame.path(plan.name, number - 1)) if number > 1 else None
    inner = _iteration(frame, number, before.output if before else None)
    if last is not None and last.phase in ("Running", "BackingOff", "Waiting"):
        walk.attempt(inner, plan, last, deadline_ms=deadline_ms, drain=drain)
    elif last is not None and last.phase == "Failed":
        walk.fail(step.path, step.attempt, last.error or CANCELLED, then=None if drain else plan.spec.on_error)
    elif last is not None and not _until(walk, inner, plan, last):
        _after_iteration(walk, frame, plan, step, last, drain=drain)
    elif last is None and drain:
        walk.fail(step.path, step.attempt, CANCELLED)
    elif last is None:
        walk.start(_iteration(frame, 1, None), plan, frame.path(plan.name, 1))


def _iteration(frame: Frame, number: int, previous: Any) -> Frame:
    return frame.looped({"iteration": number, "previous": previous})


def _until(walk: Walk, frame: Frame, plan: StepPlan, last: StepState) -> bool:
    """Evaluate `until` once; True while that is only just being journaled."""
    if last.until is not None or plan.spec.repeat is None:
        return False
    expression = plan.spec.repeat.until
    evaluator = PlaceEvaluator(walk.state, frame, output=last.output)
    until = evaluate(evaluator, lambda evaluator: evaluator.holds(expression, "repeat.until"))
    walk.record(EntryKind.EVALUATED, last.path, last.attempt, evaluated("Until", until))
    return True


def _after_iteration(
    walk: Walk, frame: Frame, plan: StepPlan, step: StepState, last: StepState, *, drain: Drain
) -> None:
    repeat, until = plan.spec.repeat, last.until
    if repeat is None or until is None:
        return
    then = None if drain else plan.spec.on_error
    if until.error is not None:
        walk.fail(step.path, step.attempt, until.error, then=then)
    elif until.value or (step.iteration >= repeat.max_iterations and repeat.on_exhausted == "Continue"):
        walk.succeed(step, last.output, then=then)
    elif step.iteration >= repeat.max_iterations:
        message = f"`until` did not hold after {step.iteration} iterations"
        exhausted = failed(ErrorClass.INVALID, message, reason="RepeatExhausted")
        walk.fail(step.path, step.attempt, exhausted.error, then=then)
    elif drain:
        walk.fail(step.path, step.attempt, CANCELLED)
    else:
        following = step.iteration + 1
        inner = _iteration(frame, following, last.output)
        walk.start(inner, plan, frame.path(plan.name, following))
