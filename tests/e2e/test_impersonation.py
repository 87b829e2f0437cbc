"""Who may impersonate Fairlead's accounts, as Kubernetes' own `edit` may in its namespace, is not taken for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.identities import (
    OPERATOR,
    POD_NAME,
    editor,
    engine_name,
    engine_of,
    give,
    in_pod,
    operator_of,
    someone,
    token_of,
    tries,
    with_token,
)
from tests.e2e.installation import Fairlead
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import becomes, engine, manifest, scene
from tests.specimens import changed, specimen

pytestmark = pytest.mark.cluster

PLAIN = manifest("Workflow", "w", {"steps": [{"name": "a", "transform": {"value": 1}}]})
NO_POD = "an engine writes from its pod only, with the token of that pod"
FORGED = ("--subresource=status", "--type=merge", "-p", '{"status": {"conditions": []}}')
APPROVAL = changed(specimen("Approval"), {"spec.decisions": []})
DECIDED = specimen("Approval")
SIGNAL = ("--type=merge", "-p", json.dumps({"spec": {"signals": [{"name": "go", "by": "bob"}]}}))


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


def run(name: str, **metadata: Any) -> dict[str, Any]:
    return manifest("WorkflowRun", name, {"workflow": "w"}, **metadata)


@pytest.mark.requirement("A12", "A47")
def test_who_impersonates_the_engine_writes_nothing(kubectl: Kubectl) -> None:
    role = "--clusterrole=fairlead-engine"  # as the operator binds it where there is an Engine
    kubectl("create", "rolebinding", "engine", role, f"--serviceaccount={kubectl.namespace}:fairlead-engine")
    seen = [("fairlead.dev", f"{kind}/status", ["get"], None) for kind in ("workflows", "workflowruns")]
    give(kubectl, engine_name(kubectl), *seen)  # kubectl reads before it patches
    kubectl.create(PLAIN)
    kubectl.create(run("r"))
    forger = someone(editor(kubectl), engine_name(kubectl))
    assert engine_name(kubectl) in forger("auth", "whoami"), "the API server lets an editor say so"
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "r.1"}, "involvedObject": {"name": "r"}}
    event["involvedObject"] |= {"namespace": kubectl.namespace, "kind": "WorkflowRun"}  # type: ignore[index]
    refusals = [
        forger.refusal("patch", "workflowrun", "r", *FORGED),
        forger.refusal("patch", "workflowrun", "r", *SIGNAL),
        forger.refusal("patch", "workflow", "w", *FORGED),
        forger.refusal("delete", "workflowrun", "r"),
        *(tries(forger, obj) for obj in (APPROVAL, DECIDED, run("child", labels={"fairlead.dev/trigger": "paid"}))),
    ]
    # Two policies refuse some of these; whose words come is chance.
    assert [words for words in refusals if "denied request" not in words] == []
    assert NO_POD in tries(forger, event)
    assert kubectl.get("workflowrun", "r")["spec"] == {"workflow": "w"}

    engine = engine_of(kubectl)
    engine("patch", "workflowrun", "r", *FORGED)
    assert tries(engine, APPROVAL) == "", "from the pod it may"


def test_no_role_of_a_namespace_lets_anybody_say_that_they_are_in_a_pod(kubectl: Kubectl) -> None:
    pretending = in_pod(editor(kubectl, "admin"), engine_name(kubectl), "fairlead-engine-0")
    assert f'cannot impersonate resource "userextras/{POD_NAME}"' in pretending.refusal("get", "workflowruns")


@pytest.mark.requirement("A12", "A62")
def test_who_impersonates_the_operator_builds_nothing(kubectl: Kubectl) -> None:
    account: dict[str, Any] = {"apiVersion": "v1", "kind": "ServiceAccount", "automountServiceAccountToken": False}
    account["metadata"] = {"name": "x", "labels": {"app.kubernetes.io/managed-by": "fairlead"}}
    kubectl.create(PLAIN)
    give(kubectl, OPERATOR, ("fairlead.dev", "workflows/status", ["get"], None))
    forger, operator = someone(kubectl, OPERATOR), operator_of(kubectl)
    assert "fairlead-operator writes from its pods only, with the tokens of those" in tries(forger, account)
    assert "denied request" in forger.refusal("patch", "workflow", "w", *FORGED)
    assert tries(operator, account) == ""
    operator("patch", "workflow", "w", *FORGED)


def test_the_token_of_the_engines_pod_is_one_and_no_other_token_is(administrator: Kubectl) -> None:
    """Nobody but a kubelet gets one at all, bound to the pod or not. What a loose one could do is seen nevertheless."""
    with scene(administrator, engine(), PLAIN) as team:
        becomes(team, "engine", "default", "Ready")
        pod = team.get("pod", "fairlead-engine-0")
        bound = ("--bound-object-kind=Pod", "--bound-object-name=fairlead-engine-0")
        for who in (team, editor(team)):
            for options in ((), bound):
                assert "by kubelets only" in who.refusal("create", "token", "fairlead-engine", *options)
        give(team, engine_name(team), ("fairlead.dev", "workflows/status", ["get"], None))
        change = ("patch", "workflow", "w", *FORGED, "--dry-run=server")
        with_token(team, token_of(team, pod, "fairlead-engine"))(*change)
        kubelet = (f"--as=system:node:{pod['spec']['nodeName']}", "--as-group=system:masters")
        loose = with_token(team, team("create", "token", "fairlead-engine", *kubelet).strip())
        assert "denied request" in loose.refusal(*change)
