"""What a WorkflowRun's spec demands of a run that has begun, as the entries that its journal lacks. Pure.

Nothing depends on which change of the object was seen, how often or when: what the spec says is compared with what
the journal says.
"""

from __future__ import annotations

from fairlead.api.run import Signal, WorkflowRunSpec
from fairlead.engine.beginning import cancel_draft
from fairlead.engine.wellformed import problem
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.state import RunState

SIGNAL_BYTES = 16_384
"""A signal with more data, or with what cannot be kept, is recorded without it, and ignored."""


def demanded(spec: WorkflowRunSpec | None, state: RunState, *, cancel: str = "") -> list[Draft]:
    """Return what to append.

    Args:
        spec: the object's; None when it is gone or not understood.
        state: the run's.
        cancel: why it is to be cancelled whatever the spec says, "" if it is not.
    """
    signals = (spec.signals if spec is not None else None) or []
    drafts = [_signal(index, signal) for index, signal in enumerate(signals) if index >= len(state.signals)]
    desired = spec.desired_state if spec is not None else None
    if state.closing is not None:
        return drafts
    if cancel or desired == "Cancelled":
        return [*drafts, cancel_draft(cancel or "the run was asked to stop")]
    if (desired == "Paused") != state.paused:
        drafts.append(Draft(EntryKind.RESUMED if state.paused else EntryKind.PAUSED))
    return drafts


def demands_nothing(spec: WorkflowRunSpec) -> bool:
    """Tell whether a run that waits, and is not paused, need not be looked at: its journal can lack nothing."""
    return not spec.signals and spec.desired_state in (None, "Running")


def _signal(index: int, signal: Signal) -> Draft:
    data = {"index": index, "name": signal.name, "by": signal.by}
    if found := problem(signal.data, most=SIGNAL_BYTES):
        return Draft(EntryKind.SIGNAL, data=data | {"ignored": f"data: {found}"})
    return Draft(EntryKind.SIGNAL, data=data | {"data": signal.data})
