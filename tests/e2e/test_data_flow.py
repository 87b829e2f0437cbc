"""Untrusted and confidential data together do not leave, on a real cluster, whatever the model was talked into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.installation import Fairlead, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    PORT,
    becomes,
    calls,
    declare,
    engine,
    manifest,
    outcome,
    play,
    policy,
    scene,
    scripted_model,
    server,
    workflow,
)

pytestmark = pytest.mark.cluster

COMMAND = ("python3", "/opt/servers/ledger.py", "--host", "0.0.0.0", "--port", str(PORT))
LEDGER = manifest(
    "Tool",
    "ledger",
    {
        "mcp": {"server": server(*COMMAND)},
        "functions": [
            {
                "name": "read",
                "effect": "Read",
                "reach": "Internal",
                "returns": {"trust": "Untrusted", "sensitivity": "Confidential"},
            },
            {"name": "append", "effect": "Irreversible", "returns": {"trust": "Trusted", "sensitivity": "Public"}},
        ],
    },
)
RULE = manifest("Policy", "flows", {"rules": {"dataFlow": {"untrustedToExternal": "Deny"}}})
TOOLS = [{"tool": "ledger", "functions": ["read", "append"]}]
AGENT = workflow("agent", {"name": "a", "agent": {"model": "scripted", "prompt": "help", "tools": TOOLS}})
READ = calls("read", "x", name="crm")
SUMMARY = {"name": "sum", "generate": {"model": "scripted", "prompt": "$( toJson(steps.crm.output) )"}}
TWO_STEPS = workflow("steps", READ, SUMMARY, calls("append", "$( steps.sum.output.text )"))
CLEAN = workflow("clean", READ, calls("append", "clean"))


def turn(function: str, key: str) -> dict[str, Any]:
    return {"toolCalls": [{"name": f"ledger__{function}", "arguments": {"key": key}}]}


@pytest.fixture(scope="module")
def team(administrator: Kubectl, chart: Fairlead) -> Iterator[Kubectl]:
    objects = (engine(), LEDGER, scripted_model(), policy("worker", "read", "append"), RULE, AGENT, TWO_STEPS, CLEAN)
    with scene(administrator, *objects) as kubectl:
        for name in ("agent", "steps", "clean"):
            becomes(kubectl, "workflow", name, "Authorized")
        becomes(kubectl, "tool", "ledger", "Reachable")
        becomes(kubectl, "model", "scripted", "Reachable")
        yield kubectl


def written(team: Kubectl) -> list[str]:
    return [entry["key"] for entry in ledger(team)]


@pytest.mark.requirement("A36")
def test_an_agent_that_was_talked_into_it_sends_nothing_after_it_has_read(team: Kubectl) -> None:
    play(team, turn("append", "before"), turn("read", "x"), turn("append", "exfiltrated"), {"content": "done"})
    run = finished(team, create_run(team, "agent"))
    assert "exfiltrated" not in written(team)
    assert "before" in written(team)
    assert run["status"]["denials"] == 1


@pytest.mark.requirement("A37")
def test_nor_does_another_step_that_was_handed_a_summary(team: Kubectl) -> None:
    play(team, {"content": "exfiltrated"})
    reason, message = outcome(finished(team, create_run(team, "steps")))
    assert reason == "Denied"
    assert "Policy flows, rule dataFlow: what led to the call is Untrusted/Confidential" in message
    assert "exfiltrated" not in written(team)


def test_what_does_not_hold_both_leaves_as_ever(team: Kubectl) -> None:
    assert outcome(finished(team, create_run(team, "clean")))[0] == "Completed"
    assert "clean" in written(team)


@pytest.mark.requirement("A36")
def test_what_may_leak_is_told_before_and_refused_where_a_policy_says_so(team: Kubectl) -> None:
    says = "step 'call' may send Confidential data from 'crm' after untrusted data from 'crm'"
    told = becomes(team, "workflow", "steps", "DataFlowSafe", "False")
    assert told["reason"] == "UntrustedToExternal" and says in told["message"]
    becomes(team, "workflow", "agent", "DataFlowSafe", "False")
    becomes(team, "workflow", "clean", "DataFlowSafe", "True")
    strict = {"rules": {"dataFlow": {"untrustedToExternal": "Deny", "static": "Enforce"}}}
    declare(team, manifest("Policy", "strict", strict))
    effective = {"name": "strict", "mode": "Enforce"}
    until("it binds", lambda: effective in team.get("workflow", "steps")["status"]["effectivePolicies"])
    before = written(team)
    reason, message = outcome(finished(team, create_run(team, "steps")))
    assert reason == "InvalidWorkflow" and f"Policy strict, rule dataFlow.static: spec.steps[2].tool: {says}" in message
    assert outcome(finished(team, create_run(team, "clean")))[0] == "Completed"
    assert written(team) == [*before, "clean"]
    team("delete", "policy", "strict")
