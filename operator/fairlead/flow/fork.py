"""A parallel's branches: one step for each of its blocks (`both/logs`), and when enough of them have succeeded.

Once that is decided either way, the others are cancelled. A call of theirs that does more than read keeps its time to
tell how it went, as everywhere.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from fairlead.flow.calls import CallError
from fairlead.flow.journal import Path
from fairlead.flow.labels import Label
from fairlead.flow.members import Member, begun, follow
from fairlead.flow.plan import StepPlan
from fairlead.flow.scope import Frame
from fairlead.flow.state import BodyState, StepState, first_failure
from fairlead.flow.steps.attempt import Failed, Fork, Succeeded
from fairlead.flow.walking import CANCELLED, NOTHING, BodyResult, Drain, Unfinished

if TYPE_CHECKING:
    from fairlead.flow.body import Walk


def go_on(
    walk: Walk, frame: Frame, plan: StepPlan, step: StepState, fork: Fork, *, deadline_ms: int, drain: Drain
) -> BodyResult:
    """Start the next branch, follow those that are open, or say how the step ends."""
    prefix, names = f"{step.path}/", list(plan.branches)
    here = walk.state.bodies.get(prefix, NOTHING)
    met = len(here.settled) - len(here.failed) >= fork.needed
    lost = len(names) - len(here.failed) < fork.needed

    def member(name: str) -> Member:
        return frame, plan.branches[name], Path(prefix + name)

    started = begun(here)
    upcoming = names[started] if started < len(names) else None
    ending = Drain.CUT if met or lost else drain
    follow(walk, here, member, upcoming=upcoming, deadline_ms=deadline_ms, drain=ending)
    if here.open or walk.records:
        return Unfinished.PENDING
    if met:
        ends = {name: walk.state.steps.get(Path(prefix + name)) for name in names}
        label = reduce(Label.join, (end.label for end in ends.values() if end is not None), step.context)
        return Succeeded({name: end.output if end else None for name, end in ends.items()}, label)
    return Failed(_not_met(walk, prefix, here, fork, of=len(names))) if lost else Unfinished.DRAINED


def _not_met(walk: Walk, prefix: str, here: BodyState, fork: Fork, *, of: int) -> CallError:
    """Return how the step fails: like the block where all must succeed, else with its class, which retry looks at."""
    error = first_failure(walk.state, prefix) or CANCELLED
    if fork.needed == of:
        return error
    name = next((n for n in here.failed if walk.state.steps[Path(prefix + n)].error == error), "")
    words = f"{fork.needed} of {of} blocks must succeed; '{name}' failed: {error.reason}: {error.message}"
    return CallError(error.error_class, "JoinNotMet", words)
