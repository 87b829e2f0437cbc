"""Stages 1 to 3: may this call of this run be looked at at all?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.api.reasons import DecisionReason, Stage
from fairlead.engine.wellformed import problem
from fairlead.flow.calls import Call
from fairlead.flow.paths import FINALLY
from fairlead.flow.state import CallState
from fairlead.policy.decision import Decision

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog


def fence(log: RunLog, call: Call, now_ms: int) -> Decision | None:
    """Stage 1: the run may still act, and the call belongs to the attempt that is under way."""
    state, ends = log.state, ends_ms(log, call)
    if state.terminal is not None or ends is None:
        return Decision("Deny", Stage.FENCE, DecisionReason.RUN_NOT_ACTIVE, "the run is not active")
    if state.paused and state.closing is None:
        return Decision("Wait", Stage.FENCE, DecisionReason.RUN_NOT_ACTIVE, "the run is paused")
    if now_ms >= ends:
        return Decision("Deny", Stage.FENCE, DecisionReason.RUN_NOT_ACTIVE, "the run is past its deadline")
    step = state.steps.get(call.id.path)
    if step is None or step.attempt != call.id.attempt or step.phase != "Running":
        return Decision("Deny", Stage.FENCE, DecisionReason.STALE_ATTEMPT, "the attempt is over")
    return None


def ends_ms(log: RunLog, call: Call) -> int | None:
    """Return until when the run may make this call; None for never. A closing run makes those of `finally` alone."""
    state = log.state
    if state.closing is not None:
        return state.finally_deadline if call.id.path.startswith(FINALLY) else None
    return state.accepted.deadline if state.accepted is not None else None


def parse(call: Call) -> Decision | None:
    """Stage 2: the request is what it seems to be."""
    found = problem(call.request)
    return Decision("Deny", Stage.PARSE, DecisionReason.MALFORMED, found) if found else None


def replay(recorded: CallState | None, call: Call) -> Decision | None:
    """Stage 3: an index that is known stands for the very same request."""
    if recorded is None or recorded.digest == call.digest:
        return None
    message = "another request was recorded for this call"
    return Decision("Deny", Stage.REPLAY, DecisionReason.NONDETERMINISM, message)
