"""Approvals on a real cluster: who decides and who cannot, and that nothing happens before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.identities import Someone, bind, engine_of, give, someone, tries
from tests.e2e.installation import FOR_TESTS, SERVERS_IMAGE, Fairlead, condition, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    ACCOUNT,
    becomes,
    calls,
    declare,
    engine,
    ledger_tool,
    manifest,
    outcome,
    policy,
    scene,
    scripted_model,
    workflow,
)
from tests.specimens import changed, specimen

pytestmark = pytest.mark.cluster

GROUP = "fairlead.dev"
PAY = workflow("pay", calls("append", "$( input.key )"))
ASK = workflow(
    "ask",
    {"name": "sign", "approval": {"message": "Go on?", "from": {"users": ["bob"]}, "expiresAfterSeconds": 5}},
    calls("append", "never"),
)


def requiring(*users: str, **terms: Any) -> dict[str, Any]:
    rule = {
        "name": "people",
        "when": "call.effect == 'Irreversible'",
        "then": "RequireApproval",
        "message": "may it be paid?",
        "approval": {"from": {"users": list(users)}, **terms},
    }
    return manifest("Policy", "people", {"rules": {"calls": [rule]}})


def lets_alice_start(team: Kubectl) -> None:
    give(team, "alice", (GROUP, "workflowruns", ["create"], None), (GROUP, "workflows", ["invoke"], None))


def start(team: Kubectl, name: str = "pay", **values: Any) -> str:
    """Start a run in the name of alice."""
    spec = {"workflow": name, "input": values, "requestedBy": "alice"}
    run = manifest("WorkflowRun", "", spec)
    run["metadata"] = {"generateName": f"{name}-"}
    return str(someone(team, "alice").create(run)["metadata"]["name"])


def asked(team: Kubectl, run: str) -> str:
    """Wait for the one Approval that a run asks for, and return its name."""

    def found() -> list[str]:
        items = team.get("approvals")["items"]
        return [item["metadata"]["name"] for item in items if item["spec"]["run"]["name"] == run]

    (name,) = until(f"{run} asks for an approval", found)
    return str(name)


def said(team: Kubectl, name: str, by: str, decision: str = "Approve", reason: str = "") -> str:
    """Return the patch that adds a decision to those that stand there."""
    known = team.get("approval", name)["spec"].get("decisions", [])
    return json.dumps({"spec": {"decisions": [*known, {"by": by, "decision": decision, "reason": reason}]}})


def decide(who: Someone, team: Kubectl, name: str, decision: str = "Approve", reason: str = "") -> None:
    who("patch", "approval", name, "--type=merge", f"-p={said(team, name, who.user, decision, reason)}")


def approver(team: Kubectl, user: str) -> Someone:
    bind(team, user, "ClusterRole", "fairlead-approver")
    return someone(team, user)


@pytest.mark.requirement("A46", "A47", "A48")
def test_people_decide_and_nobody_else(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (engine(), ledger_tool(), scripted_model(), policy("worker", "append"), PAY, ASK)
    with scene(administrator, *objects) as team:
        account = f"system:serviceaccount:{team.namespace}:{ACCOUNT}"
        declare(team, requiring("alice", "bob", "dora", account))
        lets_alice_start(team)
        for name in ("pay", "ask"):
            becomes(team, "workflow", name, "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        run = start(team, key="rent")
        name = asked(team, run)
        becomes(team, "approval", name, "Decided", "Pending")
        becomes(team, "workflowrun", run, "Succeeded", "WaitingForApproval")
        assert f"kubectl fairlead approve {name}" in team.get("workflowrun", run)["status"]["waitingFor"]
        spec = team.get("approval", name)["spec"]
        assert (spec["call"]["arguments"], spec["message"]) == ({"key": "rent"}, "may it be paid?")
        assert spec["budgetLeft"] == {"tokens": 2000000, "modelCalls": 500, "toolCalls": 500}

        bob, dora = approver(team, "bob"), approver(team, "dora")
        give(team, "carl", (GROUP, "approvals", ["get", "patch"], None))
        refused(approver(team, "mallory"), team, name, "mallory is not among those who are asked")
        refused(approver(team, "alice"), team, name, "alice requested the run; somebody else must decide")
        refused(approver(team, account), team, name, "the run acts as this account")
        refused(someone(team, "carl"), team, name, 'carl needs the verb "approve" on approvals.fairlead.dev/')
        refused(bob, team, name, "add one decision, by bob", by="dora")
        other = {"spec": {"call": spec["call"] | {"arguments": {"key": "yacht"}}}}
        assert "call is immutable" in bob.refusal("patch", "approval", name, "--type=merge", f"-p={json.dumps(other)}")
        more = json.dumps({"spec": {"budgetLeft": {"toolCalls": 501}}})
        assert "budgetLeft is immutable" in bob.refusal("patch", "approval", name, "--type=merge", f"-p={more}")
        assert "made by the engine alone" in tries(team, specimen("Approval"))
        engines = engine_of(team)
        assert "made without any decision" in tries(engines, specimen("Approval"))
        assert tries(engines, changed(specimen("Approval"), {"spec.decisions": []})) == ""

        team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
        becomes(team, "engine", "default", "Ready")
        team("delete", "approval", name)
        assert asked(team, run) == name, "what is gone is asked again"
        assert ledger(team) == []

        decide(bob, team, name)
        assert outcome(finished(team, run))[0] == "Completed"
        assert [entry["key"] for entry in ledger(team)] == ["rent"]
        becomes(team, "approval", name, "Decided", "Approved")
        refused(dora, team, name, "this Approval is decided")

        run = start(team, key="boat")
        decide(bob, team, asked(team, run), "Deny", "too dear")
        reason, message = outcome(finished(team, run))
        assert (reason, "Denied by bob: too dear" in message) == ("Denied", True)

        declare(team, requiring("bob", "dora", minApprovals=2))
        run = start(team, key="roof")
        name = asked(team, run)
        decide(bob, team, name)
        refused(bob, team, name, "bob has decided already")
        assert [entry["key"] for entry in ledger(team)] == ["rent"]
        decide(dora, team, name)
        assert outcome(finished(team, run))[0] == "Completed"
        assert [entry["key"] for entry in ledger(team)] == ["rent", "roof"]

        run = start(team, "ask")
        reason, message = outcome(finished(team, run))
        assert (reason, "ApprovalExpired" in message) == ("Denied", True)
        assert condition(team.get("approval", asked(team, run)), "Decided")["reason"] == "Expired"
        assert len(ledger(team)) == 2


@pytest.mark.requirement("G2")
def test_people_are_told_once_also_by_an_engine_that_is_killed(administrator: Kubectl, chart: Fairlead) -> None:
    notify = {"tool": "ledger", "function": "append", "arguments": {"key": "$( approval.name )"}}
    sign = {"message": "Go on?", "from": {"users": ["bob"]}, "notify": notify}
    tell = workflow("tell", {"name": "sign", "approval": sign})
    with scene(administrator, engine(), ledger_tool(), policy("worker", "append"), tell) as team:
        lets_alice_start(team)
        becomes(team, "workflow", "tell", "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        run = start(team, "tell")
        name = asked(team, run)
        until("people are told", lambda: [entry["key"] for entry in ledger(team)] == [name])
        team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
        becomes(team, "engine", "default", "Ready")
        decide(approver(team, "bob"), team, name)
        assert outcome(finished(team, run))[0] == "Completed"
        assert [entry["key"] for entry in ledger(team)] == [name]


@pytest.mark.requirement("A46")
def test_people_are_told_of_a_container_that_a_rule_gives_to_them_and_see_its_program(
    administrator: Kubectl, chart: Fairlead
) -> None:
    program = "print(1)"
    work = {"image": SERVERS_IMAGE, "script": {"command": ["python3"], "source": program}}
    pack = workflow("pack", {"name": "work", "container": work})
    may = policy("worker", "append")
    may["spec"]["grants"]["images"] = [SERVERS_IMAGE]
    asks = requiring("bob", notify={"tool": "ledger", "function": "append", "arguments": {"key": "$( approval.name )"}})
    asks["spec"]["rules"]["calls"][0]["when"] = "call.kind == 'container'"
    objects = (engine(security={"imageTags": "Allowed"}), ledger_tool(), scripted_model(), may, asks, pack)
    with scene(administrator, *objects) as team:
        lets_alice_start(team)
        becomes(team, "workflow", "pack", "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        run = start(team, "pack")
        name = asked(team, run)
        until("people are told", lambda: [entry["key"] for entry in ledger(team)] == [name])
        call = team.get("approval", name)["spec"]["call"]
        assert (call["kind"], call["target"]) == ("Container", SERVERS_IMAGE)
        assert call["arguments"]["script"]["source"] == program
        assert "fairlead-step" not in team("get", "pods", "--output=name")
        decide(approver(team, "bob"), team, name)
        assert outcome(finished(team, run))[0] == "Completed"
        assert [entry["key"] for entry in ledger(team)] == [name]


@pytest.mark.requirement("A47")
def test_without_the_admission_policy_nobody_s_word_counts(administrator: Kubectl, chart: Fairlead) -> None:
    binding = ("validatingadmissionpolicybinding", "fairlead-approvals")
    ask = workflow("ask", {"name": "sign", "approval": {"message": "Go on?", "from": {"users": ["bob"]}}})
    with scene(administrator, engine(), policy("worker"), ask) as team:
        lets_alice_start(team)
        becomes(team, "workflow", "ask", "Authorized")
        administrator("delete", *binding)
        try:
            until("admission takes an Approval of anybody", lambda: tries(team, specimen("Approval")) == "")
            run = start(team, "ask")
            name = asked(team, run)
            becomes(team, "approval", name, "Decided", "GuardrailsMissing")
            team("patch", "approval", name, "--type=merge", f"-p={said(team, name, 'bob')}")
            reason, message = outcome(finished(team, run))
            assert (reason, "does not refuse forged decisions" in message) == ("Denied", True)
        finally:
            chart.install(*FOR_TESTS)


def refused(who: Someone, team: Kubectl, name: str, words: str, *, by: str = "") -> None:
    """See a decision refused in these words."""
    patch = said(team, name, by or who.user)
    assert words in who.refusal("patch", "approval", name, "--type=merge", f"-p={patch}")
