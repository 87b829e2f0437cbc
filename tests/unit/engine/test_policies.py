"""A Policy's status tells the truth: whether it is enforced as it stands, and what its rules did, restarts included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import T0, FakeClock, FakeResources, FakeSink, workflow
from tests.unit.engine.gateworld import World, tool_call

from fairlead.api.policy import Policy
from fairlead.engine.definitions import workflow_status
from fairlead.engine.gate import Gate
from fairlead.engine.policies import Did, PolicyReports, policy_status
from fairlead.engine.status import StatusWriter
from fairlead.policy.decision import Authorization
from fairlead.policy.rules import unreadable

NOW = "2026-01-01T00:00:00Z"
RULE = {"name": "reads", "when": "call.effect != 'Read'"}
ASKS = {
    "name": "ask",
    "when": "call.effect != 'Read'",
    "then": "RequireApproval",
    "approval": {"from": {"users": ["bob"]}, "requester": "Allowed"},
}


def policy(*rules: dict[str, Any], name: str = "p", status: dict[str, Any] | None = None, **spec: Any) -> Policy:
    metadata = {"name": name, "namespace": "team", "uid": f"uid-{name}", "generation": 3}
    more = {"rules": {"calls": list(rules)}} if rules else {}
    return Policy.model_validate({"metadata": metadata, "spec": {**more, **spec}, "status": status})


STATES: dict[str, tuple[Policy | None, str, str, str]] = {
    "enforced": (policy(RULE), "True", "Enforced", "hold at every call"),
    "audited": (policy(RULE, mode="Audit"), "True", "Audited", "is recorded and happens"),
    "grants alone": (policy(grants={"serviceAccounts": ["a"]}), "True", "NoRules", "forbids nothing"),
    "a wrong rule": (
        policy(RULE | {"when": "tool == 1"}),
        "False",
        "InvalidRules",
        "spec.rules.calls[0].when: there is",
    ),
    "of a later version": (
        unreadable({"metadata": policy().metadata.model_dump(by_alias=True), "spec": {"rules": {"later": 1}}}),
        "False",
        "NotUnderstood",
        "every call that it binds is denied",
    ),
}


@pytest.mark.requirement("F36")
@pytest.mark.parametrize(("found", "status", "reason", "words"), STATES.values(), ids=STATES.keys())
def test_a_policy_says_how_it_is_enforced(found: Policy | None, status: str, reason: str, words: str) -> None:
    assert found is not None
    (condition,) = policy_status(found, {}, spent={}, previous={}, now=NOW)["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("Enforced", status, reason)
    assert words in condition["message"]
    assert condition["observedGeneration"] == 3


def test_only_rules_are_counted() -> None:
    assert "calls" not in policy_status(policy(), {}, spent={}, previous={}, now=NOW)
    calls = policy_status(policy(RULE), {Did.DENIED: 2}, spent={}, previous={}, now=NOW)["calls"]
    assert calls == {"denied": 2, "wouldDeny": 0, "asked": 0}


async def test_counts_go_on_from_what_the_status_says() -> None:
    resources, sink = FakeResources(), FakeSink()
    writer = StatusWriter("Policy", sink, durable=lambda: asyncio.sleep(0))
    above: list[tuple[str, Did]] = []
    reports = PolicyReports(
        resources,
        writer,
        clock=FakeClock(),
        on_cluster_rule=lambda found, what: above.append((found.metadata.uid, what)),
    )
    resources.policies["ClusterPolicy/p"] = policy(RULE, name="c")
    resources.policies["p"] = policy(RULE, status={"calls": {"denied": 5, "wouldDeny": 1, "asked": 0}})
    running = asyncio.create_task(writer.run())
    reports.did("p", Did.DENIED)
    reports.did("gone", Did.DENIED)
    reports.did("ClusterPolicy/p", Did.WOULD_DENY)
    async with asyncio.timeout(20):
        while not sink.of("p", "Policy"):
            await asyncio.sleep(0)
    running.cancel()
    assert sink.of("p", "Policy")[-1]["calls"] == {"denied": 6, "wouldDeny": 1, "asked": 0}
    assert above == [("uid-c", Did.WOULD_DENY)], "that status is not the engine's"
    assert not sink.of("ClusterPolicy/p", "Policy")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (policy(RULE), [("p", Did.DENIED)]),
        (policy(RULE, mode="Audit"), [("p", Did.WOULD_DENY)]),
        (policy(ASKS), [("p", Did.ASKED)]),
        (policy(), []),
    ],
)
async def test_the_gate_says_what_rules_did(found: Policy, expected: list[tuple[str, Did]]) -> None:
    world, did = World(), []
    world.policies = {"p": found}
    fakes: Any = world
    world.gate = Gate(
        *(fakes, fakes, fakes, world._Tools(fakes), world.clock),
        creator=fakes,
        sleep=world.clock.sleep,
        on_rule=lambda name, what: did.append((name, what)),
    )
    await world.make(tool_call("append"))
    assert did == expected


def test_a_workflow_says_whose_rules_bind_its_runs() -> None:
    everybody = policy(RULE, mode="Audit", name="all")
    some = policy(RULE, name="some", appliesTo={"workflows": {"matchLabels": {"tier": "prod"}}})
    grants = policy(name="grants", grants={"serviceAccounts": ["a"]})
    found = workflow({"name": "a", "transform": {"value": 1}})

    def effective(*policies: Policy) -> Any:
        status = workflow_status(found, Authorization("Allowed"), {}, policies=policies, previous={}, now_ms=T0)
        return status.get("effectivePolicies")

    assert effective(some, everybody, grants) == [{"name": "all", "mode": "Audit"}]
    found = found.model_copy(update={"metadata": found.metadata.model_copy(update={"labels": {"tier": "prod"}})})
    assert effective(some, everybody) == [{"name": "all", "mode": "Audit"}, {"name": "some", "mode": "Enforce"}]
    assert effective(grants) is None
