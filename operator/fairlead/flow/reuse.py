"""Going on from an ended run (`retryFrom`): what it had finished is not done again where nothing has changed.

Only steps that reach outside are taken over: a call that was made, a container that ran with all that it called, a time
or a signal that was waited for, the way a route went. Everything around them - blocks, loops, branches, transforms,
checks - is walked anew, so that a value that differs now reaches every step that depends on it. A step is the same when
its definition and its evaluated inputs are. An approval is for one run and is asked again; what handles errors and
`finally` run again too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fairlead.api.canonical import digest
from fairlead.flow.journal import Draft, Entry, EntryKind, Path
from fairlead.flow.labels import WORST, Label, written
from fairlead.flow.plan import CALLED, Past, Plan, StepPlan
from fairlead.flow.state import StepState
from fairlead.flow.steps.attempt import Evaluator

REUSED = frozenset({"agent", "container", "generate", "route", "tool", "wait", "workflow"})
"""The kinds of steps that are taken over."""


def past_of(run: str, entries: Iterable[Entry], plan: Plan) -> dict[Path, Past]:
    """Return what a run did, by path: of its last attempt at each step that is worth taking over.

    Args:
        run: its name.
        entries: its journal.
        plan: the revision that it executed.
    """
    found: dict[Path, Past] = {}
    labelled = True  # a version without labels had none to give
    for entry in entries:
        if entry.kind is EntryKind.RUN_ACCEPTED:
            labelled = "inputLabel" in entry.data
        known = found.get(entry.path)
        match entry.kind, entry.data.get("purpose"):
            case EntryKind.EVALUATED, "Inputs" if "error" not in entry.data:
                step = _step_at(plan, entry.path, found)
                if step is not None and step.kind in REUSED:
                    found[entry.path] = Past(run, step.kind, step.definition, digest(entry.data["value"]))
            case EntryKind.EVALUATED, "Choice" if known is not None:
                found[entry.path] = replace(known, choice=entry.data["value"])
            case EntryKind.STEP_FAILED, _ if entry.data.get("onError") == "Block":
                found.pop(entry.path, None)  # what it comes to is the work of a handler
            case EntryKind.STEP_SUCCEEDED, _ if known is not None:
                label = Label.parse(entry.data.get("label")) if labelled else WORST
                found[entry.path] = replace(known, output=entry.data["output"], succeeded=True, label=label)
            case _:
                pass
    return {path: past for path, past in found.items() if past.succeeded or past.choice is not None}


def going_on(plan: Plan, past: Mapping[Path, Past], step: str | None) -> Plan:
    """Return the plan of a run that goes on from another, but does `step` and all that comes after it again."""
    again = {step} if step is not None else set()
    while after := {other.name for other in plan.main.sequence if again & set(other.needs)} - again:
        again |= after
    return replace(plan, past={path: found for path, found in past.items() if _name(path.split("/")[0]) not in again})


def taken_over(plan: Plan, at: StepPlan, step: StepState, evaluator: Evaluator) -> Draft | None:
    """Return what the earlier run says about a step that has just evaluated its inputs; None when it has to be done.

    Raises:
        ExpressionError: a rule about its output cannot be evaluated.
    """
    past = plan.past.get(step.path)
    if past is None or step.inputs is None or step.attempt != 1 or step.choice or step.calls or step.phase != "Running":
        return None
    if (past.kind, past.definition, past.inputs) != (at.kind, at.definition, digest(step.inputs.value)):
        return None
    if past.choice is not None:
        data: dict[str, Any] = {"purpose": "Choice", "value": past.choice}
        return Draft(EntryKind.EVALUATED, step.path, step.attempt, data)
    rules = getattr(getattr(at.definition, "output", None), "rules", None)  # they may look at more than the inputs
    if rules and evaluator.broken_rules(rules, past.output):
        return None
    here = step.control if at.kind in CALLED else step.context
    data = {"output": past.output, "reusedFrom": past.run} | written(here.join(past.label))
    return Draft(EntryKind.STEP_SUCCEEDED, step.path, step.attempt, data)


def _step_at(plan: Plan, path: Path, found: Mapping[Path, Past]) -> StepPlan | None:
    """Return the step that ran at a path; None where errors were handled and in `finally`."""
    steps: Mapping[str, StepPlan] = plan.main.steps
    here, step = "", None
    for part in path.split("/"):
        step, here = steps.get(_name(part)), f"{here}{part}"
        if step is None:
            return None
        past = found.get(Path(here))
        steps = _beneath(plan, step, past.choice if past is not None else None)
        here += "/"
    return step


def _beneath(plan: Plan, step: StepPlan, choice: str | None) -> Mapping[str, StepPlan]:
    if step.kind == "parallel":
        return step.branches
    block: str | None = None
    if step.kind == "block":
        block = step.definition
    elif step.kind == "route":
        block = next((way.block for way in step.definition.choices if way.name == choice), None)
    return plan.blocks[block].steps if block is not None else {}


def _name(part: str) -> str:
    """Return the step's name in one part of a path: without its iteration or item; with a `!`, it is no step's."""
    return part.partition("#")[0].partition("[")[0]
