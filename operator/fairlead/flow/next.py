"""What is next: the one question that drives a run. Pure, and asked again after everything that happened.

The driver appends the records and asks again, or sees to it that the calls are in flight and asks when one of them
has an outcome, or at the time it is told to. A paused run starts nothing until it is resumed. A run that is closing
starts nothing any more: its open calls get some time, then their outcome is unknown; then its `finally` block gets
some time, then it ends. A child run that was made is no call in flight: others record its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fairlead.api.reasons import DecisionReason, ErrorClass, RunReason
from fairlead.flow.body import Walk
from fairlead.flow.calls import Call, CallError
from fairlead.flow.journal import SEMANTICS, Draft, EntryKind, Path
from fairlead.flow.labels import TRUSTED, written
from fairlead.flow.paths import FINALLY
from fairlead.flow.plan import Plan
from fairlead.flow.recover import given_up, open_calls
from fairlead.flow.scope import Frame
from fairlead.flow.state import Accepted, CallState, Closing, RunState, StepState
from fairlead.flow.steps.attempt import Failed, Nondeterminism, ResourceView, Succeeded, failed
from fairlead.flow.walking import Drain, TooManySteps, Unfinished

CLOSING_GRACE_MS = 20_000
"""How long the open calls of a closing run are waited for."""

FINALLY_MS = 30_000
"""How long `finally` may take. A run is terminal within a minute after its deadline (G4)."""

_RUN_REASONS = {
    ErrorClass.DENIED: RunReason.DENIED,
    ErrorClass.BUDGET_EXCEEDED: RunReason.BUDGET_EXCEEDED,
    ErrorClass.OUTCOME_UNKNOWN: RunReason.OUTCOME_UNKNOWN,
}
_RUN_REASONS_OF_REASONS = {
    DecisionReason.LOOP_DETECTED: RunReason.LOOP_DETECTED,
    DecisionReason.NONDETERMINISM: RunReason.NONDETERMINISM,
    RunReason.CHILD_NAME_CONFLICT: RunReason.CHILD_NAME_CONFLICT,
}
_CLASSES_OF_CLOSING = {
    RunReason.TIMEOUT: ErrorClass.TIMEOUT,
    RunReason.CANCELLED: ErrorClass.CANCELLED,
    RunReason.BUDGET_EXCEEDED: ErrorClass.BUDGET_EXCEEDED,
}


@dataclass(frozen=True, slots=True)
class Next:
    """What to do now.

    Attributes:
        records: entries to append; then ask again, before anything else.
        calls: when there are no records: every call that should be in flight; start those that are not. In a paused or
            closing run nothing is asked for (but by `finally`); what is in flight may finish.
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
        return _closing(plan, state, state.closing, now_ms, resources)
    main = state.bodies.get("")
    complete = main is not None and len(main.settled) == len(plan.main.steps)
    if now_ms >= accepted.deadline and (state.paused or not complete):
        return _close(RunReason.TIMEOUT, "the run did not finish before its deadline")
    if state.paused:
        return Next(wake_at_ms=accepted.deadline)
    return _go_on(plan, state, accepted, Walk(plan, state, now_ms, resources, plan.limits.steps))


def _go_on(plan: Plan, state: RunState, accepted: Accepted, walk: Walk) -> Next:
    try:
        result = walk.body(Frame(plan.main), deadline_ms=accepted.deadline)
    except TooManySteps:
        return _close(RunReason.BUDGET_EXCEEDED, f"more than {plan.limits.steps} steps would start")
    except Nondeterminism as error:
        return _close(RunReason.NONDETERMINISM, str(error))
    match result:
        case Succeeded():
            data = {"reason": RunReason.COMPLETED.value, "message": "", "output": result.output}
            return _over(plan, data | written(result.label or TRUSTED))
        case Failed():
            return _over(plan, _failure(state, result.error))
        case Unfinished():
            if walk.records:
                return Next(tuple(walk.records))
            return Next((), tuple(walk.calls), min(accepted.deadline, walk.wake_at_ms or accepted.deadline))


def _close(reason: RunReason, message: str) -> Next:
    return _record(EntryKind.CLOSING, {"reason": reason.value, "message": message})


def _over(plan: Plan, data: dict[str, object]) -> Next:
    """The steps are over: end the run, or close it for its `finally`."""
    if plan.finally_ is not None:
        return _record(EntryKind.CLOSING, data)
    if data["reason"] == RunReason.COMPLETED:
        return _record(EntryKind.RUN_SUCCEEDED, {key: data[key] for key in ("output", "label") if key in data})
    return _record(EntryKind.RUN_FAILED, data)


def _closing(plan: Plan, state: RunState, closing: Closing, now_ms: int, resources: ResourceView) -> Next:
    opened = open_calls(state)
    if plan.finally_ is not None and state.finally_deadline is not None:
        if opened and now_ms >= state.finally_deadline:
            return _unknown(state, opened)
        error = None if closing.reason == RunReason.COMPLETED else _error_of(closing)
        frame = Frame(plan.main).finish(plan.finally_, error)
        return _finally(state, closing, Walk(plan, state, now_ms, resources), frame, state.finally_deadline)
    if opened and now_ms < closing.at + CLOSING_GRACE_MS:
        return Next(wake_at_ms=closing.at + CLOSING_GRACE_MS)
    if opened:
        return _unknown(state, opened)
    if plan.finally_ is not None:
        return _record(EntryKind.TIMER_SET, {"wakeAt": now_ms + FINALLY_MS, "purpose": "Finally"})
    return _end(closing)


def _finally(state: RunState, closing: Closing, walk: Walk, frame: Frame, deadline_ms: int) -> Next:
    """Run the block, and end with it. It has begun once: after a restart it goes on with the time that is left."""
    overdue = walk.now_ms >= deadline_ms
    try:
        result = walk.body(frame, deadline_ms=deadline_ms, drain=Drain.WAIT if overdue else Drain.NO)
    except Nondeterminism as error:
        result = failed(ErrorClass.INTERNAL, str(error), reason=error.reason)
    match result:
        case Succeeded():
            return _end(closing)
        case Failed() if not (overdue and result.error.error_class == ErrorClass.CANCELLED):
            return _end_without_finally(closing, _told(state, result.error, FINALLY), result.error)
        case Unfinished.PENDING if walk.records:
            return Next(tuple(walk.records))
        case Unfinished.PENDING:
            return Next((), tuple(walk.calls), min(deadline_ms, walk.wake_at_ms or deadline_ms))
    late = failed(ErrorClass.TIMEOUT, f"it did not finish within {FINALLY_MS // 1000} s").error
    return _end_without_finally(closing, late.message, late)


def _end_without_finally(closing: Closing, message: str, error: CallError) -> Next:
    """What fails in `finally` fails a run that succeeded; how another one ended stays its reason."""
    if closing.reason == RunReason.COMPLETED:
        closing = replace(closing, reason=RunReason.STEP_FAILED.value, error=error)
    separator = "; " if closing.message else ""
    return _end(replace(closing, message=f"{closing.message}{separator}finally: {message}"))


def _end(closing: Closing) -> Next:
    if closing.reason == RunReason.COMPLETED:
        return _record(EntryKind.RUN_SUCCEEDED, {"output": closing.output} | written(closing.label))
    if closing.reason == RunReason.CANCELLED:
        return _record(EntryKind.RUN_CANCELLED, {"message": closing.message})
    data: dict[str, object] = {"reason": closing.reason, "message": closing.message}
    if closing.error is not None:
        data["error"] = closing.error.as_data()
    return _record(EntryKind.RUN_FAILED, data)


def _error_of(closing: Closing) -> CallError:
    """Return what `finally` sees as `error`."""
    error_class = _CLASSES_OF_CLOSING.get(RunReason(closing.reason), ErrorClass.INTERNAL)
    return closing.error or CallError(error_class.value, closing.reason, closing.message)


def _unknown(state: RunState, opened: list[tuple[Path, CallState]]) -> Next:
    return Next(tuple(given_up(path, state.steps[path].attempt, call) for path, call in opened))


def _failure(state: RunState, error: CallError) -> dict[str, object]:
    reason = _RUN_REASONS.get(ErrorClass(error.error_class), RunReason.STEP_FAILED)
    for known, its_reason in _RUN_REASONS_OF_REASONS.items():
        reason = its_reason if error.reason == known else reason
    return {"reason": reason.value, "message": _told(state, error, ""), "error": error.as_data()}


def _told(state: RunState, error: CallError, prefix: str) -> str:
    step = _origin(state, error, prefix)
    where = f"{step.path}: " if step else ""
    return f"{where}{error.error_class}/{error.reason}: {error.message}"


def _origin(state: RunState, error: CallError, prefix: str) -> StepState | None:
    """Return the innermost step that failed with the error that ends the list of steps."""
    found, prefixes = None, [prefix]
    while True:
        guilty = (step for prefix in prefixes for step in _failed(state, prefix) if step.error == error)
        step = next(guilty, None)
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
