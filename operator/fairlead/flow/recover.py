"""After a restart: what is unknown becomes known to be unknown, before anything else happens."""

from __future__ import annotations

from fairlead.api.reasons import ErrorClass
from fairlead.flow.calls import CallError
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.state import CallState, RunState


def recover(state: RunState) -> tuple[Draft, ...]:
    """Return what to append before a run goes on.

    An intent without outcome may or may not have taken effect. If it neither only reads nor carries an idempotency
    key, it must not be made again: it ends as OutcomeUnknown. The others `what_next` simply asks for again.
    """
    return tuple(
        outcome_unknown(path, state.steps[path].attempt, call)
        for path, call in open_calls(state)
        if not call.repeatable
    )


def open_calls(state: RunState) -> list[tuple[Path, CallState]]:
    """Return the intents without outcome, in order."""
    return [(path, state.steps[path].calls[index]) for path, index in state.open_calls]


def given_up(path: Path, attempt: int, call: CallState) -> Draft:
    """Return the outcome of a call that is not waited for any longer. A child was told to end, and will."""
    if call.child is None:
        return outcome_unknown(path, attempt, call)
    return _failed(path, attempt, call, ErrorClass.CANCELLED, f"run {call.child.name} was told to end")


def abandoned(path: Path, attempt: int, call: CallState) -> Draft:
    """Return the outcome of a call that a container made, and does not ask for any more."""
    if call.effect != "Read":
        return outcome_unknown(path, attempt, call)
    return _failed(path, attempt, call, ErrorClass.CANCELLED, "its container ended before there was an answer")


def outcome_unknown(path: Path, attempt: int, call: CallState, *, why: str = "") -> Draft:
    """Return the outcome of a call of which nobody knows whether it took effect, and why nobody asks again."""
    name = f"{call.target}.{call.function}" if call.function else call.target
    message = f"it is unknown whether {name} took effect" + (f"; it is not made again: {why}" if why else "")
    return _failed(path, attempt, call, ErrorClass.OUTCOME_UNKNOWN, message)


def _failed(path: Path, attempt: int, call: CallState, error_class: ErrorClass, message: str) -> Draft:
    error = CallError(error_class, error_class, message)
    data = {"index": call.index, "status": "Failed", "error": error.as_data(), "durationMs": 0}
    return Draft(EntryKind.CALL_OUTCOME, path, attempt, data)
