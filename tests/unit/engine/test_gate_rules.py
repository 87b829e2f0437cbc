"""Rules of Policies at the gate: live, before anything leaves, told to people and not to models."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from prometheus_client import generate_latest
from tests.unit.engine.gateworld import STEP, World, tool_call

from fairlead.api.policy import Policy
from fairlead.api.workflow import Workflow
from fairlead.flow.labels import WORST, Label


def rules(name: str = "p", *, mode: str = "Enforce", applies: dict[str, str] | None = None, **spec: Any) -> Policy:
    selector = {"appliesTo": {"workflows": {"matchLabels": applies}}} if applies else {}
    return Policy.model_validate({"metadata": {"name": name}, "spec": {"mode": mode, "rules": spec, **selector}})


NO_EFFECTS = {"calls": [{"name": "reads", "when": "call.effect != 'Read'", "message": "only reading"}]}


async def test_a_call_that_a_rule_denies_never_leaves_and_says_which_rule_it_was() -> None:
    world = World()
    world.policies = {"p": rules(**NO_EFFECTS)}
    await world.make(tool_call("append"))
    denial = world.log.last()
    assert (denial["stage"], denial["reason"]) == (6, "PolicyDenied")
    assert denial["message"] == "Policy p, rule reads: only reading"
    assert world.dispatched == []


async def test_a_changed_policy_acts_at_the_next_call() -> None:
    world = World()
    await world.make(tool_call("append"))
    world.policies = {"p": rules(**NO_EFFECTS)}
    await world.make(tool_call("append", ordinal=1 + 2, request={"arguments": {"query": f"q{1}"}}))
    world.policies = {}
    await world.make(tool_call("append", ordinal=2 + 2, request={"arguments": {"query": f"q{2}"}}))
    assert len(world.dispatched) == 2


async def test_what_an_audited_policy_would_deny_happens_and_is_recorded_and_counted() -> None:
    world = World()
    world.policies = {"p": rules(mode="Audit", **NO_EFFECTS)}
    await world.make(tool_call("append"))
    (intent,) = [entry.data for entry in world.log.entries if entry.kind == "CallIntent"]
    assert intent["wouldDeny"] == ["Policy p, rule reads: only reading"]
    assert len(world.dispatched) == 1
    counted = generate_latest(world.metrics.registry).decode()
    assert 'fairlead_would_deny_total{policy="p",rule="reads"} 1.0' in counted


async def test_a_limit_counts_from_the_intent() -> None:
    world = World()
    world.policies = {"p": rules(limits=[{"tool": "tickets", "function": "append", "callsPerRun": 2}])}
    for turn in range(3):
        await world.make(tool_call("append", ordinal=turn + 2, request={"arguments": {"query": f"q{turn}"}}))
    assert len(world.dispatched) == 2
    assert "2 of 2 calls of tickets.append are made" in world.log.last()["message"]


async def test_rules_bind_by_the_labels_that_the_workflow_has_now_and_always_when_it_is_gone() -> None:
    world = World()
    spec = {"steps": [{"name": "a", "transform": {"value": 1}}]}
    metadata = {"name": "w", "labels": {"tier": "dev"}}
    world.policies = {"p": rules(applies={"tier": "prod"}, **NO_EFFECTS)}
    world.workflows = {"w": Workflow.model_validate({"metadata": metadata, "spec": spec})}
    await world.make(tool_call("append"))
    assert len(world.dispatched) == 1
    metadata["labels"] = {"tier": "prod"}
    world.workflows = {"w": Workflow.model_validate({"metadata": metadata, "spec": spec})}
    await world.make(tool_call("append", ordinal=1 + 2, request={"arguments": {"query": f"q{1}"}}))
    world.workflows = {}
    await world.make(tool_call("append", ordinal=2 + 2, request={"arguments": {"query": f"q{2}"}}))
    assert len(world.dispatched) == 1


@pytest.mark.requirement("A15")
async def test_who_relabels_a_workflow_frees_no_run_that_was_accepted_before() -> None:
    world = World()
    spec = {"steps": [{"name": "a", "transform": {"value": 1}}]}
    assert world.log.state.accepted is not None
    world.log.state.accepted = dataclasses.replace(world.log.state.accepted, labels={"tier": "prod"})
    world.workflows = {"w": Workflow.model_validate({"metadata": {"name": "w", "labels": {}}, "spec": spec})}
    world.policies = {"p": rules(applies={"tier": "prod"}, **NO_EFFECTS)}
    await world.make(tool_call("append"))
    assert (world.dispatched, world.log.last()["reason"]) == ([], "PolicyDenied")
    when = {"calls": [{"name": "r", "when": "workflow.labels.tier == 'prod'", "then": "Deny", "message": "no"}]}
    world.policies = {"p": rules(**when)}
    await world.make(tool_call("append", ordinal=2))
    assert world.dispatched == []


async def test_the_host_that_a_tool_names_is_held_against_the_list() -> None:
    world = World()
    world.policies = {"p": rules(egress={"hosts": ["8.8.8.8:443"]})}
    await world.make(tool_call())
    assert len(world.dispatched) == 1
    world.policies = {"p": rules(egress={"hosts": ["8.8.4.4:443"]})}
    await world.make(tool_call(ordinal=2, request={"arguments": {"query": "b"}}))
    assert (len(world.dispatched), world.log.last()["reason"]) == (1, "PolicyDenied")
    assert "8.8.8.8:443 is not in the list" in world.log.last()["message"]


FLOW = {"dataFlow": {"untrustedToExternal": "Deny"}}


def labelled(world: World, label: str = "Untrusted/Public") -> None:
    """Let the run be one whose input has a label; the fold keeps what it was accepted with."""
    assert world.log.state.accepted is not None
    world.log.state.accepted = dataclasses.replace(world.log.state.accepted, label=Label.parse(label))


@pytest.mark.requirement("A36")
async def test_what_holds_both_never_leaves_and_says_why() -> None:
    world = World()
    labelled(world)
    world.policies = {"p": rules(**FLOW)}
    await world.make(tool_call("append", label=Label(untrusted=True)))
    await world.make(tool_call("append", ordinal=2, label=WORST))
    assert len(world.dispatched) == 1
    denial = world.log.last()
    assert (denial["stage"], denial["reason"]) == (7, "FlowDenied")


async def test_a_run_of_a_version_without_labels_has_the_worst() -> None:
    world = World()
    world.policies = {"p": rules(**FLOW)}
    await world.make(tool_call("append"))
    assert world.dispatched == [] and world.log.last()["reason"] == "FlowDenied"


async def test_intents_and_outcomes_say_their_labels() -> None:
    world = World(
        spec={"functions": [{"name": "append", "returns": {"trust": "Trusted", "sensitivity": "Confidential"}}]}
    )
    labelled(world)
    await world.make(tool_call("append", label=Label(untrusted=True)))
    intent, outcome = world.log.entries[-2:]
    assert (intent.data["label"], outcome.data["label"]) == ("Untrusted/Public", "Trusted/Confidential")
    assert str(world.log.state.steps[STEP].context) == "Trusted/Confidential"


async def test_people_are_shown_the_label_of_what_they_let_out() -> None:
    world = World()
    labelled(world)
    terms = {"from": {"users": ["bob"]}, "requester": "Allowed"}
    world.policies = {"p": rules(dataFlow={"untrustedToExternal": "RequireApproval", "approval": terms})}
    await world.make(tool_call("append", label=WORST))
    asked = world.log.last()["spec"]
    assert (asked["call"]["label"], asked["rule"]) == ("Untrusted/Confidential", "dataFlow")
    assert "what led to the call is Untrusted/Confidential, and it reaches outside" in asked["message"]
    assert world.dispatched == []
