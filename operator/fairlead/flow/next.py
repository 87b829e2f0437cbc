"""What is next: the one question that drives a run. Pure, and asked again after everything that happened.

The driver appends the records and asks again, or sees to it that the calls are in flight and asks when one of them
has an outcome, or at the time it is told to. A run that is closing starts nothing: its open calls get some time, then
their outcome is unknown, then it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fairlead.api.reasons import DecisionReason, ErrorClass, RunReason
from fairlead.flow.body import Walk
from fairlead.flow.calls import Call, CallError
from fairlead.flow.journal import SEMANTICS, Draft, EntryKind, Path
from fairlead.flow.plan import Plan
from fairlead.flow.recover import open_calls, outcome_unknown
from fairlead.flow.scope import Frame
from fairlead.flow.state import Accepted, Closing, RunState, StepState
from fairlead.flow.steps.attempt import Failed, Nondeterminism, ResourceView, Succeeded
from fairlead.flow.walking import TooManySteps, Unfinished

CLOSING_GRACE_MS = 20_000
"""How long the open calls of a closing run are waited for."""

_RUN_REASONS = {
    ErrorClass.DENIED: RunReason.DENIED,
    ErrorClass.BUDGET_EXCEEDED: RunReason.BUDGET_EXCEEDED,
    ErrorClass.OUTCOME_UNKNOWN: RunReason.OUTCOME_UNKNOWN,
}
_RUN_REASONS_OF_DENIALS = {
    DecisionReason.LOOP_DETECTED: RunReason.LOOP_DETECTED,
    DecisionReason.NONDETERMINISM: RunReason.NONDETERMINISM,
}


@dataclass(frozen=True, slots=True)
class Next:
    """What to do now.

    Attributes:
        records: entries to append; then ask again, before anything else.
        calls: when there are no records: every call that should be in flight; start those that are not. In a closing
            run nothing is asked for; what is in flight may finish.
        wake_at_ms: Unix ms at which to ask again when nothing happens before; None for no such time.
    """

    records: tuple[Draft, ...] = ()
    calls: tuple[Call, ...] = ()
    wake_at_ms: int | None = None


def what_next(plan: Plan, state: RunState, now_ms: int, resources: ResourceView) -> Next:
    """Return what follows from the state. Nothing at all is the answer for a run that is over.

    A run of other semantics than these gets nothing either: it waits for an engine that knows them.
    """
    accepted = state.accepted
    if accepted is None or state.terminal is not None or accepted.semantics != SEMANTICS:
        return Next()
    if state.closing is not None:
        return _closing(state, state.closing, now_ms)
    main = state.bodies.get("")
    complete = main is not None and len(main.settled) == len(plan.main.steps)
    if now_ms >= accepted.deadline and not complete:
        return _close(RunReason.TIMEOUT, "the run did not finish before its deadline")
    return _go_on(plan, state, accepted, Walk(plan, state, now_ms, resources))


def _go_on(plan: Plan, state: RunState, accepted: Accepted, walk: Walk) -> Next:
    try:
        result = walk.body(Frame(plan.main), deadline_ms=accepted.deadline)
    except TooManySteps:
        return _close(RunReason.BUDGET_EXCEEDED, f"more than {plan.limits.steps} steps would start")
    except Nondeterminism as error:
        return _close(RunReason.NONDETERMINISM, str(error))
    match result:
        case Succeeded():
            return _record(EntryKind.RUN_SUCCEEDED, {"output": result.output})
        case Failed():
            return _record(EntryKind.RUN_FAILED, _failure(state, result.error))
        case Unfinished():
            if walk.records:
                return Next(tuple(walk.records))
            return Next((), tuple(walk.calls), min(accepted.deadline, walk.wake_at_ms or accepted.deadline))


def _close(reason: RunReason, message: str) -> Next:
    return _record(EntryKind.CLOSING, {"reason": reason.value, "message": message})


def _closing(state: RunState, closing: Closing, now_ms: int) -> Next:
    opened = open_calls(state)
    if opened and now_ms < closing.at + CLOSING_GRACE_MS:
        return Next(wake_at_ms=closing.at + CLOSING_GRACE_MS)
    if opened:
        return Next(tuple(outcome_unknown(path, state.steps[path].attempt, call) for path, call in opened))
    if closing.reason == RunReason.CANCELLED:
        return _record(EntryKind.RUN_CANCELLED, {"message": closing.message})
    return _record(EntryKind.RUN_FAILED, {"reason": closing.reason, "message": closing.message})


def _failure(state: RunState, error: CallError) -> dict[str, object]:
    step = _origin(state, error)
    where = f"{step.path}: " if step else ""
    reason = _RUN_REASONS.get(ErrorClass(error.error_class), RunReason.STEP_FAILED)
    for denial, its_reason in _RUN_REASONS_OF_DENIALS.items():
        reason = its_reason if error.reason == denial else reason
    message = f"{where}{error.error_class}/{error.reason}: {error.message}"
    return {"reason": reason.value, "message": message, "error": error.as_data()}


def _origin(state: RunState, error: CallError) -> StepState | None:
    """Return the innermost step that failed with the error that ends the run."""
    found, prefixes = None, [""]
    while True:
        failed = (step for prefix in prefixes for step in _failed(state, prefix) if step.error == error)
        step = next(failed, None)
        if step is None:
            return found
        found, prefixes = step, [f"{step.path}/", f"{step.path}!/", f"{step.path}["]


def _failed(state: RunState, prefix: str) -> Iterator[StepState]:
    """Yield the steps that ended a body, each in its last iteration if it has any."""
    body = state.bodies.get(prefix)
    for name in body.failed if body else ():
        step = state.steps[Path(prefix + name)]
        last = state.steps.get(Path(f"{step.path}#{step.iteration}"))
        yield last if last is not None and last.error == step.error else step


def _record(kind: EntryKind, data: dict[str, object]) -> Next:
    return Next((Draft(kind, data=data),))
