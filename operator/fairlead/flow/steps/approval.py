"""approval: nothing is done until people have decided. It costs no call and, mostly, no process."""

from __future__ import annotations

from typing import Any

from fairlead.api.reasons import DecidedReason, DecisionReason, ErrorClass
from fairlead.api.workflow import ApprovalStep
from fairlead.flow.approvals import MESSAGE_CHARACTERS, REFUSALS, decision_of
from fairlead.flow.calls import CallIndex
from fairlead.flow.steps.attempt import Attempt, Evaluator, Result, Setting, Succeeded, failed


def inputs(definition: ApprovalStep, evaluator: Evaluator, setting: Setting) -> Any:
    """Return {message}."""
    return {"message": evaluator.text(definition.message, "approval.message")}


def advance(definition: ApprovalStep, attempt: Attempt) -> Result | None:
    """Ask once, wait, and succeed with what was decided."""
    known = next(iter(attempt.state.approvals.values()), None)
    if known is None:
        return _ask(definition, attempt)
    notify = definition.notify
    if notify is not None and attempt.tell(known, notify.tool, notify.function, index=CallIndex()):
        return None
    if attempt.held(""):
        return None
    if known.decision != DecidedReason.APPROVED and definition.on_denied != "Continue":
        return failed(ErrorClass.DENIED, decision_of(known), reason=REFUSALS[known.decision])
    output = {"decision": known.decision, "by": list(known.by), "reason": known.reason}
    return Succeeded(output, attempt.given)


def _ask(definition: ApprovalStep, attempt: Attempt) -> Result | None:
    message = attempt.inputs["message"]
    if len(message) > MESSAGE_CHARACTERS:
        return failed(ErrorClass.INVALID, f"the message has {len(message)} characters, at most {MESSAGE_CHARACTERS}")
    notice = definition.notify.arguments if definition.notify is not None else None
    if not attempt.ask_people(definition, message, notice=notice):
        unknown = "somebody else than the requester must approve, and the run has no requestedBy"
        return failed(ErrorClass.DENIED, unknown, reason=DecisionReason.REQUESTER_UNKNOWN)
    return None
