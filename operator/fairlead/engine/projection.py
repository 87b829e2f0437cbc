"""A run's status, computed from its state: the one place where a WorkflowRun's conditions are decided. Pure.

The journal is the truth; this is the summary that fits into etcd (16 KiB at most, no prompts, no results but a small
output). `status.py` decides when it is written, never before what it says is durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.canonical import canonical_json, digest
from fairlead.api.conditions import find_condition, set_condition, timestamp
from fairlead.api.meta import Condition
from fairlead.api.reasons import AcceptedReason, AuditedReason, RunReason, TracedReason
from fairlead.engine.audit import AuditHead
from fairlead.engine.store.payloads import INLINE_BYTES
from fairlead.flow.approvals import people_of, undecided
from fairlead.flow.children import waits_only_for_children
from fairlead.flow.journal import EntryKind, Path
from fairlead.flow.plan import Plan
from fairlead.flow.runstate import ApprovalState
from fairlead.flow.spending import format_usd
from fairlead.flow.state import RunState, StepState
from fairlead.telemetry.export import TraceCounts
from fairlead.telemetry.ids import span_id, trace_id

STATUS_BYTES = 16_384
STEP_ROWS = 50
PATH_CHARACTERS = 512
ROW_MESSAGE_CHARACTERS = 64
WAITING_FOR_CHARACTERS = 256
NAME_CHARACTERS = 270
MESSAGE_CHARACTERS = 1024
LACKS = "steps and output cannot be shown here; the journal has them"

_REFUSED = {
    RunReason.WORKFLOW_NOT_FOUND.value: AcceptedReason.WORKFLOW_NOT_FOUND,
    RunReason.DENIED.value: AcceptedReason.NOT_AUTHORIZED,
}
_OPEN = {
    RunReason.QUEUED: "waits for a free place",
    RunReason.EXECUTING: "steps are running",
    RunReason.WAITING_FOR_SIGNAL: "waits for a signal",
    RunReason.WAITING_FOR_APPROVAL: "waits for people",
    RunReason.SLEEPING: "waits for a time",
    RunReason.BACKING_OFF: "waits to try again",
    RunReason.WAITING_FOR_CHILD: "waits for child runs",
    RunReason.PAUSED: "was paused; its deadline goes on",
    RunReason.CLOSING: "comes to its end",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a status says beside the state of the run.

    Attributes:
        uid: the run's UID.
        generation: the object's generation that was looked at.
        previous: the status as it stands now; transition times are kept from it.
        store_id: the store that knows this run.
        now_ms: Unix ms.
        trace: what became of its spans; None when tracing is off.
        note: why an open run does not go on, "" when it does.
        told: of steps that cannot begin what they do yet, why.
        audit: the end of its audit chain; None when nobody remembers it, and what was said of it stays.
    """

    uid: str
    generation: int
    previous: Mapping[str, Any]
    store_id: str
    now_ms: int
    trace: TraceCounts | None = None
    note: str = ""
    told: Mapping[Path, str] = field(default_factory=dict)
    audit: AuditHead | None = None


def project(state: RunState, plan: Plan | None, around: Surroundings) -> dict[str, Any]:
    """Return the whole status of a run, as it is sent: camelCase, without what is not known.

    Args:
        state: the fold of its journal.
        plan: the frozen revision; None when the run was never accepted.
        around: everything else.
    """
    status = _head(state, around)
    accepted = state.accepted
    if accepted is None:
        return _remembered(around.previous) | status
    status["workflow"] = {"revision": accepted.revision, "generation": accepted.generation}
    status["startTime"] = timestamp(state.started_at)
    status["usage"] = {
        "modelCalls": state.usage.model_calls,
        "toolCalls": state.usage.tool_calls,
        "inputTokens": state.usage.input_tokens,
        "outputTokens": state.usage.output_tokens,
        **({"costUSD": format_usd(state.usage.cost)} if state.usage.cost else {}),
        "durationSeconds": max(0, (state.finished_at or around.now_ms) - state.started_at) // 1000,
    }
    if state.finished_at is not None:
        status["completionTime"] = timestamp(state.finished_at)
    if plan is not None:
        status["progress"] = _progress(state, plan)
    if waiting_for := _waiting_for(state):
        status["waitingFor"] = waiting_for[:WAITING_FOR_CHARACTERS]
    status |= _output(state)
    return _with_rows(status, [_row(state, step, around) for step in _ranked(state)])


def project_least(state: RunState, around: Surroundings) -> dict[str, Any]:
    """Return how an ended run stands where its whole status cannot be made; what was said before stays said."""
    status = _remembered(around.previous) | _head(state, around, lacks=LACKS)
    return status | ({"completionTime": timestamp(state.finished_at)} if state.finished_at is not None else {})


def project_waiting(reason: AcceptedReason, message: str, around: Surroundings) -> dict[str, Any]:
    """Return the status of a run that is not accepted yet, and why."""
    now, generation = timestamp(around.now_ms), around.generation
    conditions: list[Condition] = _previous_conditions(around)
    for type_, status, why, text in (
        ("Accepted", None, reason.value, message),
        ("Finished", False, RunReason.QUEUED.value, ""),
        ("Succeeded", None, RunReason.QUEUED.value, message),
    ):
        conditions = set_condition(
            conditions, type_, status, reason=why, message=text, now=now, observed_generation=generation
        )
    return {"conditions": _dumped(conditions), "traceID": trace_id(around.uid)}


def _head(state: RunState, around: Surroundings, *, lacks: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {
        "conditions": _conditions(state, around, lacks),
        "traceID": trace_id(around.uid),
        "denials": state.denials,
        "store": {"id": around.store_id, "sequence": state.seq},
    }
    if around.audit is not None:
        status["audit"] = {"records": around.audit.records, "head": around.audit.head}
    elif "audit" in around.previous:
        status["audit"] = around.previous["audit"]
    return status


def _conditions(state: RunState, around: Surroundings, lacks: str) -> list[dict[str, Any]]:
    now = timestamp(around.now_ms)
    conditions = _previous_conditions(around)
    for type_, (status, reason, message) in {
        "Accepted": _accepted(state, conditions),
        "Finished": _finished(state, lacks),
        "Succeeded": _succeeded(state, around),
        "Traced": _traced(around),
        "Audited": _audited(state, around),
    }.items():
        conditions = set_condition(
            conditions,
            type_,
            status,
            reason=reason,
            message=message[:MESSAGE_CHARACTERS],
            now=now,
            observed_generation=around.generation,
        )
    return _dumped(conditions)


Verdict = tuple[bool | None, str, str]


def _accepted(state: RunState, previous: list[Condition]) -> Verdict:
    if state.accepted is not None:
        return True, AcceptedReason.ACCEPTED, f"revision {state.accepted.revision}"
    if state.terminal is not None and state.terminal.reason == RunReason.STATE_LOST:
        before = find_condition(previous, "Accepted")
        if before is not None:
            return {"True": True, "False": False}.get(before.status), before.reason, before.message
    reason = state.terminal.reason if state.terminal is not None else ""
    message = state.terminal.message if state.terminal is not None else ""
    return False, _REFUSED.get(reason, AcceptedReason.REJECTED), message


def _finished(state: RunState, lacks: str) -> Verdict:
    if state.terminal is None:
        return False, _standing(state), ""
    return True, state.terminal.reason, lacks


def _succeeded(state: RunState, around: Surroundings) -> Verdict:
    terminal = state.terminal
    if terminal is not None:
        return terminal.kind is EntryKind.RUN_SUCCEEDED, terminal.reason, terminal.message
    standing = _standing(state)
    if around.note:
        return None, standing, around.note
    if standing is RunReason.CLOSING and state.closing is not None:
        why = f"{state.closing.reason}: {state.closing.message}".removesuffix(": ")
        return None, standing, why if state.finally_deadline is None else f"finally runs after {why}"
    if standing is RunReason.EXECUTING and around.told:
        return None, standing, "; ".join(f"step {path}: {why}" for path, why in sorted(around.told.items()))
    return None, standing, _OPEN[standing]


def _standing(state: RunState) -> RunReason:
    """Return what an open run is doing."""
    if state.closing is not None:
        return RunReason.CLOSING
    if state.paused:
        return RunReason.PAUSED
    if not state.steps:
        return RunReason.QUEUED
    children_only = waits_only_for_children(state)
    if undecided(state.approvals.values()) and (children_only or not state.open_calls):
        return RunReason.WAITING_FOR_APPROVAL
    if children_only:
        return RunReason.WAITING_FOR_CHILD
    # A step that holds others (a block, a loop) runs while the one inside it waits or backs off.
    waiting = _waiting(state)
    if state.open_calls or not waiting:
        return RunReason.EXECUTING
    if waiting[0].phase == "BackingOff":
        return RunReason.BACKING_OFF
    return RunReason.WAITING_FOR_SIGNAL if waiting[0].waits_for else RunReason.SLEEPING


def _waiting(state: RunState) -> list[StepState]:
    """Return the steps that wait: for a signal, for a time, to try again; in this order."""
    order = {("Waiting", True): 0, ("Waiting", False): 1, ("BackingOff", False): 2}
    ranked = [(order.get((step.phase, bool(step.waits_for))), step) for step in state.steps.values()]
    return [step for rank, step in sorted(((r, s) for r, s in ranked if r is not None), key=lambda pair: pair[0])]


def _waiting_for(state: RunState) -> str:
    """Return what an open run waits for and the command that helps, "" when it does not wait."""
    standing, name = _standing(state), state.accepted.name if state.accepted is not None else ""
    if state.terminal is not None or standing in (RunReason.CLOSING, RunReason.QUEUED, RunReason.EXECUTING):
        return ""
    if standing is RunReason.PAUSED:
        return f"somebody to resume it; kubectl fairlead resume {name}"
    if standing is RunReason.WAITING_FOR_APPROVAL:
        return _waiting_for_people(undecided(state.approvals.values()))
    if standing is RunReason.WAITING_FOR_CHILD:
        children = (state.steps[path].calls[index].child for path, index in state.open_calls)
        return ", ".join(f"run {child.name}" for child in children if child is not None)
    first, *others = _waiting(state)
    until = f" until {timestamp(first.wake_at)}" if first.wake_at is not None else ""
    more = f" (and {len(others)} more)" if others else ""
    if standing is RunReason.WAITING_FOR_SIGNAL:
        return f"signal {first.waits_for}{until}{more}; kubectl fairlead signal {name} {first.waits_for}"
    what = "a time" if standing is RunReason.SLEEPING else "another attempt"
    return f"{what}{until.replace('until', 'at')}{more}"


def _waiting_for_people(approvals: list[ApprovalState]) -> str:
    """Return which approval is missing, by whom, and the command that gives it; what is long are the people."""
    first, *others = approvals
    more = f" (and {len(others)} more)" if others else ""
    end = f" until {first.spec['expiresAt']}{more}; kubectl fairlead approve {first.name}"
    begin = f"approval {first.name} by "
    return begin + people_of(first)[: WAITING_FOR_CHARACTERS - len(begin + end)] + end


def _traced(around: Surroundings) -> Verdict:
    trace = around.trace
    if trace is None:
        return None, TracedReason.DISABLED, "no OTLP endpoint is configured"
    if trace.dropped:
        return False, TracedReason.EXPORTER_UNREACHABLE, f"{trace.dropped} dropped"
    if trace.pending or not trace.exported:
        return None, TracedReason.EXPORTING, f"{trace.pending} on their way"
    return True, TracedReason.EXPORTED, f"{trace.exported} spans"


def _audited(state: RunState, around: Surroundings) -> Verdict:
    if state.terminal is None or around.audit is None:
        return None, AuditedReason.RECORDING, "the chain of records grows"
    return True, AuditedReason.RECORDED, f"{around.audit.records} records"


def _progress(state: RunState, plan: Plan) -> str:
    steps = [state.steps.get(Path(name)) for name in plan.main.steps]
    done = sum(step is not None and step.finished_at is not None for step in steps)
    return f"{done}/{len(steps)}"


def _output(state: RunState) -> dict[str, Any]:
    if state.terminal is None or state.terminal.output is None:
        return {}
    body = canonical_json(state.terminal.output)
    if len(body) <= INLINE_BYTES:
        return {"output": state.terminal.output}
    return {"outputRef": {"digest": digest(state.terminal.output), "bytes": len(body)}}


def _ranked(state: RunState) -> list[StepState]:
    """Return the steps that a reader looks for first: open, then failed, then the rest; each in order of their start.

    Of more than fit, the rest loses its oldest.
    """
    steps = list(state.steps.values())
    urgent = [step for step in steps if step.finished_at is None] + [step for step in steps if step.phase == "Failed"]
    urgent = list({step.path: step for step in urgent}.values())[:STEP_ROWS]
    shown = {step.path for step in urgent}
    rest = [step for step in steps if step.path not in shown]
    room = STEP_ROWS - len(urgent)
    return urgent + (rest[-room:] if room else [])


def _row(state: RunState, step: StepState, around: Surroundings) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": step.path[:PATH_CHARACTERS],
        "phase": "Waiting" if step.phase == "BackingOff" or _waits(step) else step.phase,
        "attempts": step.attempt,
    }
    if step.started_at:
        row["startedAt"] = timestamp(step.started_at)
    if step.finished_at is not None:
        row["finishedAt"] = timestamp(step.finished_at)
    if step.phase != "Skipped":
        row["spanID"] = span_id(around.uid, step.path, 0, "step", "")
    if step.error is not None and step.phase in ("Failed", "BackingOff"):
        row["message"] = f"{step.error.reason}: {step.error.message}"[:ROW_MESSAGE_CHARACTERS]
    elif ignored := _ignored(state, step):
        row["message"] = f"a signal was ignored: {ignored}"[:ROW_MESSAGE_CHARACTERS]
    elif asked := undecided(step.approvals.values()):
        row["message"] = f"approval {asked[0].name}"[:ROW_MESSAGE_CHARACTERS]
    elif step.child:
        row["message"] = f"run {step.child}"[:ROW_MESSAGE_CHARACTERS]
    elif step.finished_at is None and (why := around.told.get(step.path)):
        row["message"] = why[:ROW_MESSAGE_CHARACTERS]
    elif said := step.partial or (f"done by run {step.reused_from}" if step.reused_from else ""):
        row["message"] = said[:ROW_MESSAGE_CHARACTERS]
    if step.denial is not None:
        named = {"policy": step.denial.policy, "rule": step.denial.rule}
        row["denial"] = {"reason": step.denial.reason[:ROW_MESSAGE_CHARACTERS]} | {
            key: name[:NAME_CHARACTERS] for key, name in named.items() if name
        }
    if step.tokens:
        row["tokens"] = step.tokens
    return row


def _waits(step: StepState) -> bool:
    """Tell whether all that a step does is to wait for child runs, or for people."""
    opened = [call for call in step.calls.values() if not call.settled]
    held = bool(opened or undecided(step.approvals.values()))
    return held and all(call.child is not None and call.child.uid for call in opened)


def _ignored(state: RunState, step: StepState) -> str:
    """Return why the last signal of the name that a step waits for did not end its wait; "" if there was none."""
    if not step.waits_for:
        return ""
    named = [(str(index), signal) for index, signal in enumerate(state.signals) if signal.name == step.waits_for]
    reasons = (signal.ignored or "; ".join(step.findings.get(index, ())) for index, signal in reversed(named))
    return next((reason for reason in reasons if reason), "")


def _with_rows(status: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the status with as many rows as it may hold; the last ones give way."""
    room = STATUS_BYTES - len(canonical_json(status)) - len('"steps":[],')
    fitting = []
    for row in rows:
        room -= len(canonical_json(row)) + 1
        if room < 0:
            break
        fitting.append(row)
    return status | {"steps": fitting}


def _remembered(previous: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an earlier store had said: kept when the run ends here without being known (StateLost)."""
    kept = ("workflow", "startTime", "progress", "steps", "usage")
    return {key: previous[key] for key in kept if key in previous}


def _previous_conditions(around: Surroundings) -> list[Condition]:
    return [Condition.model_validate(condition) for condition in around.previous.get("conditions", [])]


def _dumped(conditions: list[Condition]) -> list[dict[str, Any]]:
    return [condition.model_dump(by_alias=True, exclude_none=True) for condition in conditions]
