"""Approvals, as the core sees them: what is asked for, how it is named, what people's decisions come to. Pure.

A request stands in the journal first; the Approval object is made after it, as often as it takes. Its name follows from
a digest of all that is approved, so that the least change asks again and no approval is ever good for something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.api.approval import ApprovalSpec, ApprovalTerms
from fairlead.api.canonical import digest
from fairlead.api.conditions import timestamp
from fairlead.api.reasons import DecidedReason, DecisionReason
from fairlead.flow.calls import CallId
from fairlead.flow.journal import Draft, Entry, EntryKind
from fairlead.flow.labels import Label
from fairlead.flow.runstate import ApprovalState, Evaluation, RunState, StepState

MESSAGE_CHARACTERS = 4096
_NAME_CHARACTERS = 63
_DIGEST_CHARACTERS = 16


REFUSALS = {
    DecidedReason.DENIED.value: DecisionReason.APPROVAL_DENIED,
    DecidedReason.EXPIRED.value: DecisionReason.APPROVAL_EXPIRED,
}
"""Why a call or a step is denied that people did not approve, by their decision."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What people decided. `by` are those whose word counted."""

    decision: DecidedReason
    by: Sequence[str] = ()
    reason: str = ""


def lacks_requester(terms: ApprovalTerms, requested_by: str | None) -> bool:
    """Tell whether somebody else than the requester must approve, and nobody knows who that is."""
    return terms.requester == "Excluded" and not requested_by


def request(
    state: RunState,
    at: CallId,
    terms: ApprovalTerms,
    *,
    index: str,
    message: str,
    now_ms: int,
    binds: Any = None,
    call: Mapping[str, Any] | None = None,
    rule: Mapping[str, str] | None = None,
) -> Draft:
    """Return the entry that asks people.

    Args:
        state: the run's.
        at: the attempt that waits.
        terms: who must approve.
        index: which call of the attempt; "" for an approval step.
        message: what they are asked.
        now_ms: Unix ms.
        binds: what else the approval is good for alone, as JSON: the digests of a call, of what it goes to, of a rule.
        call: the call as people see it; `binds` has its digest.
        rule: {policy, rule} that asks for it; None for an approval step.
    """
    accepted = state.accepted
    assert accepted is not None
    asked: dict[str, Any] = {
        "run": {"name": accepted.name, "uid": state.run_uid},
        "workflow": accepted.workflow,
        "serviceAccountName": accepted.account,
        "step": at.path,
        "attempt": at.attempt,
        "index": index,
        "message": message,
        **({"requestedBy": accepted.requested_by} if accepted.requested_by else {}),
        **(rule or {}),
        **{key: value for key, value in terms_of(terms).items() if key not in ("expiresAfterSeconds", "notify")},
    }
    bound = digest({"asked": asked, "binds": binds})
    asked |= {"call": dict(call)} if call else {}
    expires_ms = now_ms + terms.expires_after_seconds * 1000
    name = f"{accepted.name[: _NAME_CHARACTERS - _DIGEST_CHARACTERS - 1].rstrip('-')}-{bound[7:][:_DIGEST_CHARACTERS]}"
    spec = asked | {"digest": bound, "expiresAt": timestamp(expires_ms)}
    return Draft(
        EntryKind.APPROVAL_REQUESTED,
        at.path,
        at.attempt,
        {"index": index, "name": name, "spec": spec, "expiresAt": expires_ms},
    )


def terms_of(terms: ApprovalTerms) -> dict[str, Any]:
    """Return the terms alone, as JSON."""
    return terms.model_dump(by_alias=True, exclude_none=True, include=set(ApprovalTerms.model_fields))


def verdict_of(spec: Mapping[str, Any], namespace: str) -> Verdict | None:
    """Return what the decisions in the spec of an Approval come to, None while they come to nothing.

    The API server admits only decisions by those who may decide, each in their own name. What can be seen here is
    looked at again: nobody counts twice, nor the requester where they are excluded, nor the run's own account.
    """
    asked = ApprovalSpec.model_validate(spec)
    excluded = {f"system:serviceaccount:{namespace}:{asked.service_account_name}"}
    if asked.requester == "Excluded":
        excluded.add(asked.requested_by or "")
    approved: dict[str, str] = {}
    for one in asked.decisions or ():
        named = asked.from_.groups or one.by in (asked.from_.users or ())
        if one.by in excluded or one.by in approved or not named:
            continue
        if one.decision == "Deny":
            return Verdict(DecidedReason.DENIED, [one.by], one.reason)
        approved[one.by] = one.reason
        if len(approved) == asked.min_approvals:
            return Verdict(DecidedReason.APPROVED, list(approved), one.reason)
    return None


def decided(approval: ApprovalState, verdict: Verdict) -> Draft:
    """Return the entry that says what was decided."""
    data = {"name": approval.name, "decision": verdict.decision.value, "by": list(verdict.by), "reason": verdict.reason}
    return Draft(EntryKind.APPROVAL_DECIDED, approval.path, approval.attempt, data)


def expired(approval: ApprovalState) -> Draft:
    """Return the entry that says that nobody has decided in time."""
    return decided(approval, Verdict(DecidedReason.EXPIRED, (), "nobody decided in time"))


def decision_of(approval: ApprovalState) -> str:
    """Return what was decided, by whom and why, in words."""
    by = f" by {', '.join(approval.by)}" if approval.by else ""
    return f"{approval.decision}{by}: {approval.reason}"


def undecided(approvals: Iterable[ApprovalState]) -> list[ApprovalState]:
    """Return those that still wait."""
    return [approval for approval in approvals if not approval.decision]


def people_of(approval: ApprovalState) -> str:
    """Return who is asked, in words."""
    asked = [f"user {user}" for user in approval.spec["from"].get("users", ())]
    asked += [f"group {group}" for group in approval.spec["from"].get("groups", ())]
    many = approval.spec["minApprovals"]
    return f"{many} of {', '.join(asked)}" if many > 1 else " or ".join(asked)


# The fold


def fold_request(state: RunState, step: StepState, entry: Entry) -> None:
    """Take note of a request; while it is open the time of its step stands still."""
    data = entry.data
    approval = ApprovalState(
        data["name"], entry.path, entry.attempt, data["index"], data["spec"], entry.at, data["expiresAt"]
    )
    if "notice" in data:
        approval.notice = Evaluation(data["notice"], None, Label.parse(data.get("label")))
        approval.tells = (data["tells"]["tool"], data["tells"]["function"]) if "tells" in data else None
    if approval.name not in step.approvals:
        step.held_since = step.held_since or entry.at
        step.approvals[approval.name] = state.approvals[approval.name] = approval


def fold_decision(state: RunState, entry: Entry) -> None:
    """Take note of a decision; the first one counts."""
    data, approval = entry.data, state.approvals.get(entry.data["name"])
    if approval is None or approval.decision:
        return
    approval.decision, approval.by, approval.reason = data["decision"], tuple(data["by"]), data["reason"]
    go_on(state.steps[approval.path], entry.at)


def go_on(step: StepState, now_ms: int) -> None:
    """Let the time of a step go on that stood still, once people have decided and nothing tells them of it any more."""
    if not step.held_since or undecided(step.approvals.values()):
        return
    alone = any(approval.index == "" for approval in step.approvals.values())  # an approval step calls nothing else
    if not any((call.is_notice or alone) and not call.settled for call in step.calls.values()):
        step.deadline += now_ms - step.held_since if step.deadline else 0
        step.held_since = 0


def withdraw(step: StepState) -> None:
    """Take note that an attempt is over: what it waited for is not wanted any more."""
    for approval in undecided(step.approvals.values()):
        approval.decision = DecidedReason.WITHDRAWN.value
    step.approvals, step.held_since = {}, 0
