"""How calls get into the state: what they ask for, what came of them, and what they used up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fairlead.api.reasons import DecisionReason, ErrorClass
from fairlead.flow.approvals import go_on
from fairlead.flow.calls import CallError, CallKind, Outcome
from fairlead.flow.journal import Entry, Path
from fairlead.flow.labels import Label
from fairlead.flow.runstate import CallState, Child, Denial, RunState, StepState, Usage
from fairlead.flow.spending import NOTHING, Spend, Window

_CLASS_OF_DENIAL = {
    DecisionReason.BUDGET_EXCEEDED: ErrorClass.BUDGET_EXCEEDED,
    DecisionReason.RATE_LIMITED: ErrorClass.RATE_LIMITED,
    DecisionReason.AUTHORIZER_UNAVAILABLE: ErrorClass.UNAVAILABLE,
    DecisionReason.DEFINITION_UNKNOWN: ErrorClass.UNAVAILABLE,
    DecisionReason.POLICIES_UNKNOWN: ErrorClass.UNAVAILABLE,
    DecisionReason.NOT_ISOLATED: ErrorClass.UNAVAILABLE,
}


def fold_intent(state: RunState, entry: Entry) -> None:
    """Take note of a call that is about to be made, and hold what it can come to."""
    step, data = current(state, entry), entry.data
    if step is None or data["index"] in step.calls:
        return
    kind, child = CallKind(data["kind"]), data.get("child")
    step.calls[data["index"]] = CallState(
        index=data["index"],
        kind=kind,
        target=data["target"],
        function=data.get("function", ""),
        digest=data["digest"],
        effect=data["effect"],
        key=data.get("key", ""),
        child=Child(child["name"], child["spec"]) if child else None,
        held=Spend.from_data(data.get("holds")),
        windows=tuple(Window(*window) for window in data.get("windows", ())),
    )
    state.open_calls[(entry.path, data["index"])] = None
    if step.calls[data["index"]].is_notice:
        return  # whoever wrote the rule asks for it, not the run
    if kind is CallKind.TOOL:
        name = f"{data['target']}.{data.get('function', '')}"
        state.made[name] = state.made.get(name, 0) + 1
    for used in counted(state, entry.path):
        if kind not in (CallKind.CHAT, CallKind.EMBED):
            used.tool_calls += 1
        else:
            used.model_calls += 1
            used.hold(step.calls[data["index"]].held)


def fold_resent(state: RunState, entry: Entry) -> None:
    """Take note that a model is asked again after a restart: the first time may have cost as much."""
    step, data = current(state, entry), entry.data
    call = step.calls.get(data["index"]) if step else None
    if step is None or call is None or call.settled:
        return
    before, call.held = call.held, Spend.from_data(data["holds"])
    call.windows = tuple(Window(*window) for window in data.get("windows", ()))
    step.tokens += before.tokens
    for used in counted(state, entry.path):
        used.settle(before, before)
        used.hold(call.held)


def fold_child(state: RunState, entry: Entry) -> None:
    """Take note of the child run that a call started, or lost."""
    step = current(state, entry)
    call = step.calls.get(entry.data["index"]) if step else None
    if step is not None and call is not None and call.child is not None:
        call.child = replace(call.child, uid=entry.data.get("uid", ""))
        step.child = call.child.name


def fold_pod(state: RunState, entry: Entry) -> None:
    """Take note of the pod of a container call."""
    step = current(state, entry)
    call = step.calls.get(entry.data["index"]) if step else None
    if call is not None:
        call.pod = entry.data["uid"]


def fold_outcome(state: RunState, entry: Entry) -> None:
    """Settle a call, unless it is or its attempt is over."""
    step, data = current(state, entry), entry.data
    call = step.calls.get(data["index"]) if step else None
    if step is None or call is None or call.settled:
        return
    usage, error = data.get("usage") or {}, data.get("error")
    spent = Spend.from_data(usage) if "usage" in data else call.held
    call.outcome = Outcome(
        result=data.get("result"),
        error=CallError.from_data(error) if error else None,
        input_tokens=spent.input_tokens,
        output_tokens=spent.output_tokens,
        cost=spent.cost,
        duration_ms=data.get("durationMs", 0),
        metered="usage" in data or not call.held,
    )
    call.label = Label.parse(data.get("label"))
    if not call.is_notice:
        step.context = step.context.join(call.label)
    for used in counted(state, entry.path):
        used.model_calls += usage.get("modelCalls", 0)
        used.tool_calls += usage.get("toolCalls", 0)
        used.steps += usage.get("steps", 0)
        used.settle(call.held, spent)
    step.tokens, call.held = step.tokens + spent.tokens, NOTHING
    state.open_calls.pop((entry.path, call.index), None)
    go_on(step, entry.at)


def fold_denial(state: RunState, entry: Entry) -> None:
    """Settle a call that may not be made."""
    state.denials += 1
    step, data = current(state, entry), entry.data
    if step is None:
        return
    step.denial = Denial(data["reason"], data.get("policy", ""), data.get("rule", ""))
    call = step.calls.setdefault(
        data["index"],
        CallState(
            index=data["index"],
            kind=CallKind(data["kind"]),
            target=data["target"],
            function=data.get("function", ""),
            digest=data.get("digest", ""),
        ),
    )
    if not call.settled:
        error_class = _CLASS_OF_DENIAL.get(data["reason"], ErrorClass.DENIED)
        call.denied = CallError(error_class.value, data["reason"], data.get("message", ""))
        call.stage = str(data.get("stage", ""))
        state.open_calls.pop((entry.path, call.index), None)
        for used in counted(state, entry.path) if call.held else ():
            used.settle(call.held, call.held)  # a call that was open at a restart and may not be sent again
        step.tokens, call.held = step.tokens + call.held.tokens, NOTHING
        go_on(step, entry.at)
    if around := data.get("forEach"):
        state.steps[Path(around)].reached = data["limit"]


def charge_open(state: RunState, step: StepState) -> None:
    """Take all that is held for the open calls of an attempt that is over as used: nobody waits for what they say."""
    for call in step.calls.values():
        if call.held and not call.settled:
            for used in counted(state, step.path):
                used.settle(call.held, call.held)
            step.tokens, call.held = step.tokens + call.held.tokens, NOTHING


def counted(state: RunState, path: Path) -> Iterator[Usage]:
    """Yield where the use of a step counts: in the run, and in every forEach around it."""
    yield state.usage
    at = path.find("[")
    while at >= 0:
        around = state.steps[Path(path[:at])]
        if around.used is None:
            around.used = Usage()
        yield around.used
        at = path.find("[", at + 1)


def current(state: RunState, entry: Entry) -> StepState | None:
    """Return the step whose running attempt the entry speaks of; None when that attempt is over."""
    step = state.steps.get(entry.path)
    return step if step and step.attempt == entry.attempt and step.phase == "Running" else None
