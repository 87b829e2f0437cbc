"""Rules of Policies on a real cluster: live, per call, and told in the run's status."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.e2e.installation import Fairlead, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
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

pytestmark = pytest.mark.cluster

RULES = {
    "calls": [{"name": "noSecrets", "when": "call.arguments.key == 'secret'", "message": "not this key"}],
    "limits": [{"tool": "ledger", "function": "append", "callsPerRun": 1}],
}
TWICE = workflow("twice", calls("append", "$( input.key )", name="one"), calls("append", "again", name="two"))
ONCE = workflow("once", calls("append", "$( input.key )"))


@pytest.mark.requirement("P1")
def test_rules_hold_at_every_call_and_go_with_their_policy(
    administrator: Kubectl, chart: Fairlead, cluster_environment: dict[str, str]
) -> None:
    rules = manifest("Policy", "bounds", {"rules": RULES})
    objects = (engine(), ledger_tool(), scripted_model(), policy("worker", "append"), rules, TWICE, ONCE)
    with scene(administrator, *objects) as team:
        for name in ("once", "twice"):
            becomes(team, "workflow", name, "Authorized")
        becomes(team, "tool", "ledger", "Reachable")
        assert outcome(finished(team, create_run(team, "once", key="open")))[0] == "Completed"
        reason, message = outcome(finished(team, create_run(team, "once", key="secret")))
        assert reason == "Denied"
        assert "Policy bounds, rule noSecrets: not this key" in message
        reason, message = outcome(finished(team, create_run(team, "twice", key="first")))
        assert reason == "Denied"
        assert "1 of 1 calls of ledger.append are made" in message
        assert [entry["key"] for entry in ledger(team)] == ["open", "first"]
        becomes(team, "policy", "bounds", "Enforced")
        until("it is counted", lambda: team.get("policy", "bounds")["status"].get("calls", {}).get("denied") == 2)
        effective = {"name": "bounds", "mode": "Enforce"}
        until("the Workflow says so", lambda: effective in team.get("workflow", "once")["status"]["effectivePolicies"])
        becomes(team, "engine", "default", "GuardrailsInstalled")
        program = (sys.executable, "-m", "fairlead.cli", "doctor", f"--namespace={team.namespace}")

        def examined() -> str:
            done = subprocess.run(program, env=cluster_environment, capture_output=True, text=True, check=False)
            assert done.returncode in (0, 1), done.stderr
            return " ".join(done.stdout.split())  # lines are as wide as a terminal

        # What has just been made may not answer yet.
        told = until("nothing is wrong", lambda: found if "✖" not in (found := examined()) else "")
        assert "admission policies deny" in told
        assert "no ClusterRoleBinding lets anybody impersonate fairlead-engine in its pod" in told
        assert "functions that nobody has reviewed may be called: ledger." in told
        open_ = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
        head = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "open"}}
        team.create(head | {"spec": open_})
        widened = "NetworkIsolation is False: NetworkPolicy open lets out pods of steps"
        until("the open network is told", lambda: widened in examined())
        team("delete", "networkpolicy", "open")
        team("delete", "policy", "bounds")
        until(
            "the rules are gone",
            lambda: outcome(finished(team, create_run(team, "once", key="secret")))[0] == "Completed",
        )
        wrong = {"rules": {"calls": [{"name": "odd", "when": "tool == 'x'"}]}}
        declare(team, manifest("Policy", "odd", wrong))
        told = becomes(team, "policy", "odd", "Ready", "False")
        assert "there is no 'tool'" in str(told)
