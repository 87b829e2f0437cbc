"""How labels get into the state: what decides that a step runs, and what its holder learns from it (labels.py)."""

from __future__ import annotations

from functools import reduce

from fairlead.flow.journal import Path
from fairlead.flow.labels import TOLD, TRUSTED, Label
from fairlead.flow.paths import FINALLY, holder_of, is_turn
from fairlead.flow.runstate import RunState, StepState


def control_of(state: RunState, path: Path) -> Label:
    """Return the label of what decides that a step runs: its `when`, and what holds it, or began the run."""
    holder, when, accepted = state.steps.get(holder_of(path)), state.whens.get(path), state.accepted
    began = accepted.control if accepted is not None else TRUSTED
    label = holder.context if holder is not None else began
    return label.join(when.label) if when is not None else label


def of_end(state: RunState) -> Label:
    """Return the label of how the Workflow's own steps went, which `error` tells in `finally`."""
    own = (step for step in state.steps.values() if not (holder_of(step.path) or step.path.startswith(FINALLY)))
    return reduce(Label.join, (step.context for step in own), TRUSTED)


def of_signal(state: RunState) -> Label:
    """Return the label of what a run was told; a run of a version without labels has none."""
    return TOLD if state.accepted is not None and state.accepted.label is not None else TRUSTED


def tell_holder(state: RunState, step: StepState) -> None:
    """What an item, an iteration or a failure is, whatever holds it learns from it."""
    holder = state.steps.get(holder_of(step.path))
    if holder is not None and (is_turn(step.path) or step.error is not None):
        holder.context = holder.context.join(step.label)
