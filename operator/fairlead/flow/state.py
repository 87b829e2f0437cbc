"""The state of a run: the fold of its journal, one entry at a time.

`apply` knows the journal's vocabulary but not the plan. `next.py` reads the state and proposes what comes next. Both
look only at what is open: finished steps keep their output, finished bodies cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fairlead.api.canonical import canonical_json
from fairlead.api.reasons import ErrorClass
from fairlead.api.steps import StepLimits
from fairlead.flow.approvals import fold_decision, fold_request, withdraw
from fairlead.flow.callfold import (
    charge_open,
    counted,
    current,
    fold_child,
    fold_denial,
    fold_intent,
    fold_outcome,
    fold_pod,
    fold_resent,
)
from fairlead.flow.calls import Call, CallError, CallKind
from fairlead.flow.journal import TERMINAL, Entry, EntryKind, Path, RunUid
from fairlead.flow.labelling import control_of, of_signal, tell_holder
from fairlead.flow.labels import Label
from fairlead.flow.paths import place_of
from fairlead.flow.runstate import (
    Accepted,
    BodyState,
    CallState,
    Closing,
    Evaluation,
    Phase,
    RunState,
    SignalState,
    StepState,
    Terminal,
    Usage,
)


def new_state() -> RunState:
    """Return the state of a run of which nothing is known."""
    return RunState(RunUid(""))


def apply(state: RunState, entry: Entry) -> RunState:
    """Return the state after one more entry. It is the same object, changed: never keep the old one.

    An outcome for a call that has one, or for an attempt that is over, changes nothing; nor does anything after the
    terminal entry.
    """
    if state.terminal is None:
        _FOLDS[entry.kind](state, entry)
    state.run_uid, state.seq = entry.run_uid, entry.seq
    return state


def repeats_of(state: RunState, call: Call) -> int:
    """Return how often this very call was recorded in its attempt already, itself not counted.

    0 for models, and for what a container asks for: programs may ask again, and have a bound of their own. So have
    notices: as many as there are approvals.
    """
    step = state.steps.get(call.id.path)
    if call.kind not in (CallKind.TOOL, CallKind.WORKFLOW) or call.pod or call.id.index.notice:
        return 0
    if step is None or step.attempt != call.id.attempt:
        return 0
    own, digest = str(call.id.index), call.digest
    return sum(other.digest == digest and index != own for index, other in step.calls.items())


def first_failure(state: RunState, prefix: str, *, but: Callable[[CallError], bool] | None = None) -> CallError | None:
    """Return what a list of steps failed with: the first of its failures, but before all others an unknown outcome.

    Whoever tries the list again would try all that failed in it, and an unknown outcome must not be tried again.
    Those that `but` names are none.
    """
    body = state.bodies.get(prefix)
    found = (state.steps[Path(prefix + name)].error for name in (body.failed if body else ()))
    errors = [error for error in found if error is not None and not (but and but(error))]
    unknown = (error for error in errors if error.error_class == ErrorClass.OUTCOME_UNKNOWN)
    return next(unknown, errors[0] if errors else None)


def _accepted(state: RunState, entry: Entry) -> None:
    data = entry.data
    state.started_at = entry.at
    state.held_bytes = len(canonical_json(data["input"]))
    state.accepted = Accepted(
        workflow=data["workflow"],
        namespace=data["namespace"],
        name=data["name"],
        revision=data["revision"],
        generation=data["generation"],
        semantics=data["semantics"],
        input=data["input"],
        account=data["account"],
        created_at=data["createdAt"],
        deadline=data["deadline"],
        requested_by=data.get("requestedBy"),
        parent=data.get("parent"),
        scheduled_at=data.get("scheduledAt"),
        retry_from=data.get("retryFrom"),
        label=Label.parse(data["inputLabel"]) if "inputLabel" in data else None,
        labels=data.get("workflowLabels") or {},
    )


def _step_started(state: RunState, entry: Entry) -> None:
    prefix, name, iteration = place_of(entry.path)
    step = state.steps.get(entry.path)
    if step is None:
        step = state.steps[entry.path] = StepState(entry.path, started_at=entry.at)
        step.control = step.context = control_of(state, entry.path)
        state.whens.pop(entry.path, None)
        for used in counted(state, entry.path):
            used.steps += iteration != 1
    if iteration:
        state.steps[Path(prefix + name)].iteration = iteration
    else:
        _body(state, prefix).open[name] = None
    step.phase, step.attempt, step.tries, step.handled = "Running", entry.attempt, step.tries + 1, None
    step.deadline, step.wake_at, step.finished_at, step.handling = entry.data.get("deadline", 0), None, None, False
    charge_open(state, step)
    step.calls, step.findings, step.waits_for, step.signal = {}, {}, "", None
    withdraw(step)
    if entry.attempt > 1:
        _reopen_beneath(state, step, entry.at)


def _reopen_beneath(state: RunState, step: StepState, at: int) -> None:
    """Make what failed beneath start again with the new attempt; what succeeded there never runs again."""
    for prefix in (f"{step.path}/", f"{step.path}!/", f"{step.path}["):
        _reopen_body(state, prefix, at)
    last = state.steps.get(Path(f"{step.path}#{step.iteration}"))
    if last is not None and last.phase == "Failed":
        _back_off_until(last, at)


def _reopen_body(state: RunState, prefix: str, at: int) -> None:
    if body := state.bodies.get(prefix):
        for name in body.failed:
            del body.settled[name]
            _reopen(state, body, Path(prefix + name), at)
        body.failed.clear()


def _reopen(state: RunState, body: BodyState, path: Path, at: int) -> None:
    step = state.steps[path]
    if step.handled is not None:  # what handles it has begun: that goes on, and is done once
        body.open[place_of(path)[1]] = None
        step.phase, step.handling, step.error, step.finished_at = "Running", True, step.handled, None
        _reopen_body(state, f"{path}!/", at)
    elif step.attempt:
        body.open[place_of(path)[1]] = None
        _back_off_until(step, at)
    else:  # its `when` failed: it is as if it had never been looked at
        _reopen_beneath(state, step, at)
        del state.steps[path]


def _back_off_until(step: StepState, at: int) -> None:
    step.phase, step.wake_at, step.tries, step.finished_at = "BackingOff", at, 0, None


def _evaluated(state: RunState, entry: Entry) -> None:
    purpose, error = entry.data["purpose"], entry.data.get("error")
    label = Label.parse(entry.data.get("label"))
    value = Evaluation(entry.data.get("value"), CallError.from_data(error) if error else None, label)
    step = state.steps.get(entry.path)
    if step is not None:
        step.context = step.context.join(label if purpose != "Signal" else of_signal(state))
    match purpose:
        case "When":
            state.whens[entry.path] = value
        case "Items" if step:
            step.items = value
            step.bounds = StepLimits.model_validate(entry.data["limits"]) if "limits" in entry.data else None
        case "Inputs" if step:
            step.inputs = value
        case "Choice" if step:
            step.choice = value
        case "Until" if step:
            step.until = value
        case "Signal" if step:
            step.signal = value.value
            state.signals[value.value].taken = True
        case "Findings" if step and step.attempt == entry.attempt:
            step.findings[entry.data["index"]] = value.value
        case _:
            pass


def _approval_requested(state: RunState, entry: Entry) -> None:
    step = current(state, entry)
    if step is not None:
        fold_request(state, step, entry)


def _step_succeeded(state: RunState, entry: Entry) -> None:
    step = _settle(state, entry, phase="Succeeded")
    step.output, step.inputs, step.choice, step.items = entry.data.get("output"), None, None, None
    state.held_bytes += len(canonical_json(step.output))
    step.partial, step.reused_from = entry.data.get("partial", ""), entry.data.get("reusedFrom", "")
    step.label = Label.parse(entry.data.get("label"))
    tell_holder(state, step)


def _step_skipped(state: RunState, entry: Entry) -> None:
    step = state.steps.setdefault(entry.path, StepState(entry.path, started_at=entry.at))
    step.label = step.control = step.context = control_of(state, entry.path)
    state.whens.pop(entry.path, None)
    _settle(state, entry, phase="Skipped")


def _step_failed(state: RunState, entry: Entry) -> None:
    error = CallError.from_data(entry.data["error"])
    then = entry.data.get("onError")
    step = state.steps.setdefault(entry.path, StepState(entry.path, started_at=entry.at))
    if not step.attempt:  # a `when` that cannot be evaluated fails a step that never started
        step.control = step.context = control_of(state, entry.path)
    state.whens.pop(entry.path, None)
    step.error, step.label = error, step.context
    tell_holder(state, step)
    if entry.data["final"]:
        _settle(state, entry, phase="Failed", ends_body=then != "Continue")
    elif then == "Block":
        step.handling, step.handled = True, error
        prefix, name, _ = place_of(entry.path)
        _body(state, prefix).open[name] = None
        charge_open(state, step)
        step.calls, step.findings = {}, {}
        withdraw(step)
    else:
        step.phase, step.wake_at = "BackingOff", None


def _settle(state: RunState, entry: Entry, *, phase: Phase, ends_body: bool = False) -> StepState:
    step = state.steps[entry.path]
    step.phase, step.finished_at, step.handling, step.wake_at = phase, entry.at, False, None
    for index in step.calls:
        state.open_calls.pop((entry.path, index), None)
    charge_open(state, step)
    step.calls, step.findings = {}, {}
    withdraw(step)
    prefix, name, iteration = place_of(entry.path)
    if not iteration:
        body = _body(state, prefix)
        body.open.pop(name, None)
        body.settled[name] = None
        if ends_body:
            body.failed[name] = None
    return step


def _timer_set(state: RunState, entry: Entry) -> None:
    purpose, wake_at = entry.data["purpose"], entry.data.get("wakeAt")
    if purpose == "Finally":
        state.finally_deadline = wake_at
        return
    step = state.steps[entry.path]
    step.wake_at = wake_at
    if purpose == "Wait":
        step.phase, step.waits_for = "Waiting", entry.data.get("signal", "")


def _signal(state: RunState, entry: Entry) -> None:
    data = entry.data
    if data["index"] == len(state.signals):
        state.signals.append(SignalState(data["name"], data.get("data"), data["by"], data.get("ignored", "")))


def _paused(state: RunState, entry: Entry) -> None:
    state.paused = entry.kind is EntryKind.PAUSED


def _closing(state: RunState, entry: Entry) -> None:
    data, error = entry.data, entry.data.get("error")
    if state.closing is None:
        state.closing = Closing(
            reason=data["reason"],
            message=data.get("message", ""),
            at=entry.at,
            output=data.get("output"),
            error=CallError.from_data(error) if error else None,
            label=Label.parse(data.get("label")),
        )


def _ended(state: RunState, entry: Entry) -> None:
    data, error = entry.data, entry.data.get("error")
    reason = {EntryKind.RUN_SUCCEEDED: "Completed", EntryKind.RUN_CANCELLED: "Cancelled"}.get(entry.kind)
    state.terminal = Terminal(
        kind=entry.kind,
        reason=reason or data["reason"],
        message=data.get("message", ""),
        output=data.get("output"),
        error=CallError.from_data(error) if error else None,
        label=Label.parse(data.get("label")),
    )
    state.finished_at = entry.at
    state.open_calls.clear()
    cancelled = CallError(ErrorClass.CANCELLED, "Cancelled", "the run ended")
    for step in state.steps.values():
        withdraw(step)
        if step.finished_at is None:
            charge_open(state, step)
            step.phase, step.finished_at, step.wake_at = "Failed", entry.at, None
            step.error = step.error or cancelled


def _body(state: RunState, prefix: str) -> BodyState:
    return state.bodies.setdefault(prefix, BodyState())


_FOLDS: Mapping[EntryKind, Callable[[RunState, Entry], None]] = {
    EntryKind.RUN_ACCEPTED: _accepted,
    EntryKind.STEP_STARTED: _step_started,
    EntryKind.EVALUATED: _evaluated,
    EntryKind.CALL_INTENT: fold_intent,
    EntryKind.CALL_RESENT: fold_resent,
    EntryKind.CALL_OUTCOME: fold_outcome,
    EntryKind.CALL_DENIED: fold_denial,
    EntryKind.CHILD_STARTED: fold_child,
    EntryKind.POD_STARTED: fold_pod,
    EntryKind.CHILD_LOST: fold_child,
    EntryKind.APPROVAL_REQUESTED: _approval_requested,
    EntryKind.APPROVAL_DECIDED: fold_decision,
    EntryKind.STEP_SUCCEEDED: _step_succeeded,
    EntryKind.STEP_SKIPPED: _step_skipped,
    EntryKind.STEP_FAILED: _step_failed,
    EntryKind.TIMER_SET: _timer_set,
    EntryKind.SIGNAL: _signal,
    EntryKind.PAUSED: _paused,
    EntryKind.RESUMED: _paused,
    EntryKind.CLOSING: _closing,
    **dict.fromkeys(TERMINAL, _ended),
}

__all__ = [
    "Accepted",
    "BodyState",
    "CallState",
    "Closing",
    "Evaluation",
    "RunState",
    "SignalState",
    "StepState",
    "Terminal",
    "Usage",
    "apply",
    "first_failure",
    "new_state",
    "repeats_of",
]
