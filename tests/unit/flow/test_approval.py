"""approval: people decide; without a call, without anybody who waits, and for nothing else than they were asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.flow.world import START_MS, UID, Driver, Journal, World, accepted, error, plan_of, step, tool

from fairlead.api.approval import ApprovalTerms
from fairlead.api.reasons import DecidedReason
from fairlead.flow.approvals import Verdict, decided, request, undecided, verdict_of
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.labels import TRUSTED
from fairlead.flow.next import what_next
from fairlead.flow.plan import Plan
from fairlead.flow.runstate import ApprovalState

FROM = {"users": ["alice", "bob", "carol"]}


def approval(**more: Any) -> dict[str, Any]:
    return {"name": "sign", "approval": {"message": "Send it?", "from": FROM, "expiresAfterSeconds": 600, **more}}


def started(*steps: dict[str, Any], requested_by: str = "carol", **spec: Any) -> Driver:
    """A run that has come as far as it can within its first ten seconds."""
    plan = plan_of(list(steps), **spec)
    driver = Driver(plan, World(), accepted(plan, **({"requestedBy": requested_by} if requested_by else {})))
    driver.run(until_ms=START_MS + 10_000)
    return driver


def asked(driver: Driver) -> ApprovalState:
    (only,) = undecided(driver.state.approvals.values())
    return only


def decide(driver: Driver, decision: DecidedReason, by: str = "alice", reason: str = "why not") -> None:
    driver.append(decided(asked(driver), Verdict(decision, [by], reason)))
    driver.run()


@pytest.mark.requirement("G7")
def test_an_approval_waits_until_somebody_approves() -> None:
    driver = started(approval())
    assert asked(driver).expires_at == START_MS + 600_000
    decide(driver, DecidedReason.APPROVED)
    assert step(driver.state, "sign").output == {"decision": "Approved", "by": ["alice"], "reason": "why not"}
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"


def test_the_spec_of_the_approval_says_what_is_asked() -> None:
    ask = approval(message="Send $( input.what )?", minApprovals=2)
    plan = plan_of([ask])
    driver = Driver(plan, World(), accepted(plan, {"what": "money"}, requestedBy="carol"))
    driver.run(until_ms=START_MS + 10_000)
    spec = asked(driver).spec
    assert (spec["message"], spec["minApprovals"], spec["step"]) == ("Send money?", 2, "sign")
    assert (spec["run"], spec["workflow"]) == ({"name": "run", "uid": UID}, plan.name)
    assert (spec["serviceAccountName"], spec["requestedBy"], spec["requester"]) == ("robot", "carol", "Excluded")
    assert spec["expiresAt"] == "1970-01-01T00:26:40Z"


@pytest.mark.parametrize(
    ("decision", "reason"), [(DecidedReason.DENIED, "ApprovalDenied"), (DecidedReason.EXPIRED, "ApprovalExpired")]
)
def test_what_is_not_approved_fails_as_denied_or_goes_on(decision: DecidedReason, reason: str) -> None:
    driver = started(approval())
    decide(driver, decision)
    terminal = driver.state.terminal
    assert terminal is not None and terminal.error is not None
    assert (terminal.reason, terminal.error.error_class, terminal.error.reason) == ("Denied", "Denied", reason)
    lenient = started(approval(onDenied="Continue"))
    decide(lenient, decision)
    assert step(lenient.state, "sign").output["decision"] == decision.value
    assert step(lenient.state, "sign").phase == "Succeeded"


@pytest.mark.requirement("A48")
def test_nobody_who_answers_in_time_is_a_denial() -> None:
    driver = started(approval())
    driver.run()
    assert driver.journal.now_ms == START_MS + 600_000
    (entry,) = driver.journal.of(EntryKind.APPROVAL_DECIDED)
    assert (entry.data["decision"], entry.data["by"]) == ("Expired", [])
    assert driver.state.terminal is not None and driver.state.terminal.reason == "Denied"


def test_a_run_of_which_nobody_knows_the_requester_is_not_approved_by_somebody_else() -> None:
    driver = started(approval(), requested_by="")
    terminal = driver.state.terminal
    assert terminal is not None and terminal.error is not None
    assert terminal.error.reason == "RequesterUnknown"
    assert asked(started(approval(requester="Allowed"), requested_by="")).spec["requester"] == "Allowed"


def test_a_message_that_nobody_can_be_shown_is_invalid() -> None:
    driver = started(approval(message="x" * 4097))
    assert driver.state.terminal is not None
    assert "4097 characters, at most 4096" in driver.state.terminal.message


def test_the_first_decision_counts_and_a_late_one_changes_nothing() -> None:
    driver = started(approval(onDenied="Continue"), {"name": "rest", "wait": {"seconds": 20}})
    first = asked(driver)
    decide(driver, DecidedReason.DENIED)
    driver.append(decided(first, Verdict(DecidedReason.APPROVED, ["bob"], "")))
    assert driver.state.approvals[first.name].decision == "Denied"


def test_what_a_cancelled_branch_asked_for_is_withdrawn() -> None:
    blocks = [
        {"name": "people", "steps": [approval()]},
        {"name": "clock", "steps": [{"name": "w", "wait": {"seconds": 6}}]},
    ]
    both = {"name": "both", "parallel": {"blocks": ["people", "clock"], "join": {"mode": "Any"}}}
    driver = started(both, blocks=blocks)
    driver.run()
    (only,) = driver.state.approvals.values()
    assert only.decision == "Withdrawn"
    assert driver.state.terminal is not None and driver.state.terminal.reason == "Completed"


def test_a_cancelled_run_asks_for_nothing_any_more() -> None:
    driver = started(approval())
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))
    driver.run()
    assert [one.decision for one in driver.state.approvals.values()] == ["Withdrawn"]


def test_every_item_of_a_loop_asks_for_itself() -> None:
    each = approval(message="$( item )?") | {"forEach": {"items": ["a", "b"], "maxParallel": 2}}
    driver = started(each)
    assert [one.spec["message"] for one in driver.state.approvals.values()] == ["a?", "b?"]
    assert len(driver.state.approvals) == 2


TEXT = "$( input.what ): fairlead approve $( approval.name )"
NOTIFY = {"tool": "t", "function": "send", "arguments": {"text": TEXT}}
SEND = {"name": "send", "effect": "Irreversible", "returns": {"trust": "Untrusted", "sensitivity": "Confidential"}}


def notified(answer: Any) -> Driver:
    a_world = World(answer=answer, tools={"t": tool(SEND)})
    plan = plan_of([approval(notify=NOTIFY, requester="Allowed")])
    driver = Driver(plan, a_world, accepted(plan, {"what": "money"}, inputLabel="Trusted/Public"))
    driver.run(until_ms=START_MS + 10_000)
    return driver


def test_people_are_told_once_and_by_the_name_of_what_they_approve() -> None:
    driver = notified(lambda call: "told")
    (call,) = driver.world.performed
    assert (call.target, call.function, call.label) == ("t", "send", TRUSTED)
    assert call.request["arguments"] == {"text": f"money: fairlead approve {asked(driver).name}"}
    decide(driver, DecidedReason.APPROVED)
    assert len(driver.world.performed) == 1
    assert step(driver.state, "sign").phase == "Succeeded"
    assert step(driver.state, "sign").label == TRUSTED, "nobody reads what a notice brings"


@pytest.mark.parametrize("answer", [error("ToolError"), error("Unavailable"), error("OutcomeUnknown")])
def test_who_could_not_be_told_can_still_decide(answer: Any) -> None:
    driver = notified(lambda call: answer)
    assert asked(driver) and len(driver.world.performed) == 1
    decide(driver, DecidedReason.APPROVED)
    assert step(driver.state, "sign").output["decision"] == "Approved"
    assert len(driver.world.performed) == 1


def test_a_notice_that_may_not_be_sent_is_denied_as_any_call_and_people_still_decide() -> None:
    a_world = World(answer=lambda call: "told", tools={"t": tool(SEND)}, denied={"t.send": "Forbidden"})
    plan = plan_of([approval(notify=NOTIFY, requester="Allowed")])
    driver = Driver(plan, a_world, accepted(plan, {"what": "money"}))
    driver.run(until_ms=START_MS + 10_000)
    assert [entry.data["reason"] for entry in driver.journal.of(EntryKind.CALL_DENIED)] == ["Forbidden"]
    decide(driver, DecidedReason.APPROVED)
    assert step(driver.state, "sign").phase == "Succeeded" and not driver.world.performed


def test_a_decision_waits_for_a_notice_that_is_on_its_way_and_for_none_that_is_not() -> None:
    """Else the end of the step would cut off an effect, and nobody would know whether it happened."""
    for begun in (True, False):
        a_world = World(answer=lambda call: "told", tools={"t": tool(SEND)})
        plan = plan_of([approval(notify=NOTIFY, requester="Allowed")])
        driver = Driver(plan, a_world, accepted(plan, {"what": "money"}))
        while not driver.state.approvals:
            for draft in what_next(plan, driver.state, driver.journal.now_ms, a_world).records:
                driver.append(draft)
        (wanted,) = what_next(plan, driver.state, driver.journal.now_ms, a_world).calls
        if begun:
            driver.call((wanted,))
        driver.append(decided(asked(driver), Verdict(DecidedReason.APPROVED, ["alice"], "")))
        following = what_next(plan, driver.state, driver.journal.now_ms, a_world)
        assert following.calls == ((wanted,) if begun else ())
        assert [draft.kind for draft in following.records] == ([] if begun else [EntryKind.STEP_SUCCEEDED])


TELLS = {"notice": {"text": "x"}, "tells": {"tool": "t", "function": "send"}, "label": "Trusted/Public"}


def rule_asks(plan: Plan, *, timeout_ms: int = 5000) -> Journal:
    """Return the journal of a call that a rule gives to people, told of by a call that has begun."""
    journal = accepted(plan, {"what": "money"})
    at = CallId(Path("pay"), 1, CallIndex())
    journal.append(Draft(EntryKind.STEP_STARTED, at.path, 1, {"deadline": journal.now_ms + timeout_ms}))
    journal.append(Draft(EntryKind.EVALUATED, at.path, 1, {"purpose": "Inputs", "value": {"arguments": {}}}))
    terms = ApprovalTerms.model_validate({"from": FROM, "requester": "Allowed"})
    asked = request(journal.fold(), at, terms, index="0.0.0", message="?", now_ms=journal.now_ms)
    journal.append(replace(asked, data={**asked.data, **TELLS}))
    return journal


PAY = {"name": "pay", "tool": {"tool": "t", "function": "pay"}, "timeoutSeconds": 5}


def test_a_notice_may_go_as_long_as_people_may_decide_and_the_step_s_time_waits_for_it() -> None:
    plan = plan_of([PAY])
    journal = rule_asks(plan)
    (wanted,) = what_next(plan, journal.fold(), journal.now_ms, World()).calls
    assert (str(wanted.id.index), wanted.tells) == ("0.0.0.1", True)
    assert wanted.deadline_ms == next(iter(journal.fold().approvals.values())).expires_at
    data = {"index": "0.0.0.1", "kind": "Tool", "target": "t", "function": "send", "digest": wanted.digest}
    journal.append(Draft(EntryKind.CALL_INTENT, Path("pay"), 1, data | {"effect": "Irreversible"}))
    deadline = step(journal.fold(), "pay").deadline
    journal.now_ms += 2000
    journal.append(decided(next(iter(journal.fold().approvals.values())), Verdict(DecidedReason.APPROVED, ["alice"])))
    (still,) = what_next(plan, journal.fold(), journal.now_ms, World()).calls
    assert still == wanted, "the call waits for what has begun"
    assert step(journal.fold(), "pay").deadline == deadline
    journal.now_ms += 20_000
    journal.append(Draft(EntryKind.CALL_OUTCOME, Path("pay"), 1, data | {"status": "Succeeded", "result": {}}))
    (call,) = what_next(plan, journal.fold(), journal.now_ms, World()).calls
    assert str(call.id.index) == "0.0.0"
    assert step(journal.fold(), "pay").deadline == deadline + 22_000


def test_another_attempt_tells_people_anew() -> None:
    """With the key of the first one a server would say that it has told them."""
    tells = Call(CallId(Path("pay"), 1, CallIndex(notice=1)), CallKind.TOOL, "t", tells=True)
    again = replace(tells, id=replace(tells.id, attempt=2))
    assert tells.idempotency_key(UID) != again.idempotency_key(UID)
    calls = [replace(one, tells=False) for one in (tells, again)]
    assert calls[0].idempotency_key(UID) == calls[1].idempotency_key(UID)


def test_what_a_notice_says_must_have_a_value() -> None:
    driver = started(approval(notify=NOTIFY, requester="Allowed"))
    assert driver.state.terminal is not None and driver.state.terminal.error is not None
    assert driver.state.terminal.error.error_class == "Invalid"
    assert not driver.state.approvals


@pytest.mark.requirement("A46")
@pytest.mark.parametrize(
    "change",
    [
        {"message": "Send more?"},
        {"terms": {"minApprovals": 2}},
        {"terms": {"from": {"users": ["alice", "bob"]}}},
        {"binds": {"call": "sha256:2"}},
        {"rule": {"policy": "p", "rule": "other"}},
        {"at": CallId(Path("sign"), 2, CallIndex())},
        {"at": CallId(Path("other"), 1, CallIndex())},
        {"index": "1.0.0"},
    ],
)
def test_the_least_change_is_another_approval(change: dict[str, Any]) -> None:
    assert _name() == _name(now_ms=START_MS + 1), "but for the time"
    assert _name() != _name(**change)


def _name(terms: dict[str, Any] | None = None, at: CallId | None = None, **change: Any) -> str:
    state = accepted(plan_of([approval()])).fold()
    asks = ApprovalTerms.model_validate({"from": FROM} | (terms or {}))
    said = {"index": "0.0.0", "message": "Send it?", "now_ms": START_MS, "binds": {"call": "sha256:1"}} | change
    return str(request(state, at or CallId(Path("sign"), 1, CallIndex()), asks, **said).data["name"])


def test_the_name_of_an_approval_fits_whatever_the_run_is_called() -> None:
    state = accepted(plan_of([approval()]), name="x" * 45 + "-" + "y" * 17).fold()
    asks = ApprovalTerms.model_validate({"from": FROM})
    draft = request(state, CallId(Path("s"), 1, CallIndex()), asks, index="", message="?", now_ms=0)
    assert draft.data["name"].startswith("x" * 45 + "-")
    assert len(draft.data["name"]) <= 63


def said(by: str, decision: str = "Approve") -> dict[str, str]:
    return {"by": by, "decision": decision, "reason": f"{by} knows"}


VERDICTS: list[tuple[str, dict[str, Any], list[dict[str, str]], tuple[str, list[str]] | None]] = [
    ("nobody yet", {}, [], None),
    ("one of them", {}, [said("alice")], ("Approved", ["alice"])),
    ("one denies", {}, [said("alice", "Deny")], ("Denied", ["alice"])),
    ("one of two is not enough", {"minApprovals": 2}, [said("alice")], None),
    ("two of two", {"minApprovals": 2}, [said("alice"), said("bob")], ("Approved", ["alice", "bob"])),
    ("nobody counts twice", {"minApprovals": 2}, [said("alice"), said("alice")], None),
    ("a denial by the last", {"minApprovals": 2}, [said("alice"), said("bob", "Deny")], ("Denied", ["bob"])),
    ("a stranger", {}, [said("mallory")], None),
    ("a stranger does not deny either", {}, [said("mallory", "Deny"), said("bob")], ("Approved", ["bob"])),
    ("who requested the run", {}, [said("carol")], None),
    ("the requester where that is allowed", {"requester": "Allowed"}, [said("carol")], ("Approved", ["carol"])),
    ("the run's own account", {"from": {"groups": ["g"]}}, [said("system:serviceaccount:team:robot")], None),
    ("somebody of a group", {"from": {"groups": ["g"]}}, [said("dora")], ("Approved", ["dora"])),
]  # fmt: skip


@pytest.mark.requirement("A47")
@pytest.mark.parametrize(("change", "decisions", "verdict"), [r[1:] for r in VERDICTS], ids=[r[0] for r in VERDICTS])
def test_whose_word_counts(
    change: dict[str, Any], decisions: list[dict[str, str]], verdict: tuple[str, list[str]] | None
) -> None:
    spec = dict(asked(started(approval())).spec) | change | {"decisions": decisions}
    found = verdict_of(spec, "team")
    assert (found and (found.decision.value, list(found.by))) == verdict
