"""What runs side by side beneath one step: the items of a forEach, the branches of a parallel.

They are steps of their own, in a list of their own, and start in their order, one at a walk. The state counts them, so
that a walk looks only at those that are open, however many there were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fairlead.flow.journal import Path
from fairlead.flow.plan import StepPlan
from fairlead.flow.scope import Frame
from fairlead.flow.state import BodyState
from fairlead.flow.walking import Drain

if TYPE_CHECKING:
    from fairlead.flow.body import Walk

Member = tuple[Frame, StepPlan, Path]


def begun(here: BodyState) -> int:
    """Return how many members have started: the number of the next one."""
    return len(here.open) + len(here.settled)


def follow(
    walk: Walk,
    here: BodyState,
    member: Callable[[str], Member],
    *,
    upcoming: str | None,
    deadline_ms: int,
    drain: Drain,
) -> None:
    """Start the member `upcoming`, if there is one; else go on with those that are open.

    Raises:
        TooManySteps: a member would have to start and may not.
    """
    latest = next(reversed(here.open), None)
    if latest is not None and not drain:
        walk.complete_start(*member(latest))
    if upcoming is not None and not drain and not walk.records:
        walk.start(*member(upcoming))
    for name in here.open:
        if walk.records:
            break
        frame, plan, path = member(name)
        walk.attempt(frame, plan, walk.state.steps[path], deadline_ms=deadline_ms, drain=drain)
