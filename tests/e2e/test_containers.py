"""Container steps on a real cluster: pods that hold nothing, once each, through crashes; and why one does not run."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import yaml
from tests.e2e.identities import editor, engine_name, engine_of, someone, tries
from tests.e2e.installation import IMAGE, ROOT, SERVERS_IMAGE, Fairlead, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import ACCOUNT, Manifest, becomes, engine, manifest, outcome, scene, workflow

pytestmark = pytest.mark.cluster

REPORT = """
import json
given = json.load(open("/work/input.json"))
print("counting", given["text"])
json.dump({"letters": len(given["text"])}, open("/work/output.json", "w"))
"""
WAY_OUT = """
import json, os, socket
def tries(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False
api = ("10.96.0.1", 443)
ways = [api, (os.environ["KUBERNETES_SERVICE_HOST"], 443), ("169.254.169.254", 80), ("10.250.0.2", 10250)]
token = os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")
json.dump({"open": [w for w in ways if tries(*w)], "token": token, "uid": os.getuid()}, open("/work/output.json", "w"))
"""
SLOW = "import time, sys\nprint('begun', flush=True)\ntime.sleep(20)\nopen('/work/output.json', 'w').write('\"done\"')"


FILES = ("engine", "policy", "workflow")


def grants(*images: str) -> Manifest:
    return manifest("Policy", "worker", {"grants": {"serviceAccounts": [ACCOUNT], "images": [*images]}})


def script(source: str, *, image: str = SERVERS_IMAGE, **more: Any) -> Manifest:
    return {"image": image, "script": {"command": ["python3"], "source": source}, **more}


def step(container: Manifest, **more: Any) -> Manifest:
    return {"name": "work", "container": container, "retry": {"limit": 0}, **more}


TAGS = {"security": {"imageTags": "Allowed"}}


def pods(team: Kubectl) -> list[Manifest]:
    return list(team.get("pods", "--selector=fairlead.dev/component=step")["items"])


@pytest.mark.requirement("A13")
def test_a_container_gets_its_input_leaves_its_output_and_reaches_nothing(
    administrator: Kubectl, chart: Fairlead, cluster_environment: dict[str, str]
) -> None:
    counts = script(REPORT, input={"text": "$( input.key )"}, output={"schema": {"type": "object"}})
    objects = (
        engine(**TAGS),
        grants(SERVERS_IMAGE),
        workflow("counts", step(counts), output="$( steps.work.output.letters )"),
        workflow("leaves", step(script(WAY_OUT))),
        workflow("fails", step(script("import sys; print('bad day'); sys.exit(3)"))),
        workflow("eats", step(script("x = b'x' * 10**9", resources={"memory": "64Mi"}))),
        workflow("other", step(script("print(1)", image="localhost/other:dev"))),
    )
    with scene(administrator, *objects) as team:
        for name in ("counts", "leaves", "fails", "eats"):
            becomes(team, "workflow", name, "Authorized")
        told = becomes(team, "workflow", "other", "Authorized", "False")
        assert "no Policy grants the image localhost/other:dev" in told["message"]
        name = create_run(team, "counts", key="hello")
        run = finished(team, name)
        assert outcome(run)[0] == "Completed", outcome(run)
        assert run["status"]["output"] == 5
        program = (sys.executable, "-m", "fairlead.cli", "logs", name, f"--namespace={team.namespace}")
        told = subprocess.run(program, env=cluster_environment, capture_output=True, text=True, check=True)
        assert "counting hello" in told.stdout
        until("its pod is gone", lambda: not pods(team))
        found = finished(team, create_run(team, "leaves", key="x"))["status"]["output"]
        assert found == {"open": [], "token": False, "uid": 65532}
        fails, eats, other = (finished(team, create_run(team, name, key="x")) for name in ("fails", "eats", "other"))
        assert "ended with 3" in outcome(fails)[1]
        assert "memory" in outcome(eats)[1]
        reason, message = outcome(other)
        assert reason == "Denied" and "no Policy grants the image localhost/other:dev" in message


QUOTA: Manifest = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "only-the-engine"},
    "spec": {"hard": {"pods": "1"}},
}


def in_the_way(team: Kubectl, name: str) -> str:
    """Return why the step of a run that goes on cannot begin, as its status says within half a minute."""

    def told() -> Manifest | None:
        run = team.get("workflowrun", name)
        return run if outcome(run)[1].startswith("step work: ") else None

    run = until(f"what is in the way of {name} is told", told, timeout_seconds=30)
    reason, message = outcome(run)
    assert reason == "Executing" and run["status"]["steps"][0]["message"] in message
    return message


@pytest.mark.requirement("F09")
def test_why_a_pod_does_not_start_is_told_within_half_a_minute(administrator: Kubectl, chart: Fairlead) -> None:
    missing = "localhost/fairlead-missing:dev"
    objects = (
        engine(**TAGS),
        grants(SERVERS_IMAGE, missing),
        workflow("absent", step(script("print(1)", image=missing), timeoutSeconds=60)),
        workflow("large", step(script("print(1)", resources={"cpu": "4000"}), timeoutSeconds=60)),
        workflow("full", step(script("print(1)"))),
        workflow("boxed", step(script("print(1)", runtimeClassName="nowhere"))),
    )
    with scene(administrator, *objects) as team:
        for name in ("absent", "large", "full", "boxed"):
            becomes(team, "workflow", name, "Authorized")
        team.create(QUOTA)
        until("the quota counts", lambda: team.get("resourcequota", "only-the-engine")["status"].get("used"))
        full = create_run(team, "full", key="x")
        assert "QuotaExceeded" in in_the_way(team, full)
        team("delete", "resourcequota", "only-the-engine")
        runs = {name: create_run(team, name, key="x") for name in ("absent", "large", "boxed")}
        assert "mage" in in_the_way(team, runs["absent"])
        assert "Insufficient cpu" in in_the_way(team, runs["large"])
        assert outcome(finished(team, full))[0] == "Completed"
        reasons = {name: outcome(finished(team, run))[1] for name, run in runs.items()}
        assert "mage" in reasons["absent"], reasons
        assert "Insufficient cpu" in reasons["large"], reasons
        assert 'RuntimeClass "nowhere" not found' in reasons["boxed"], reasons
        narrow = {"rules": {"containers": {"runtimeClassNames": ["gvisor"], "maxResources": {"cpu": "100m"}}}}
        team.create(manifest("Policy", "narrow", narrow))
        becomes(team, "policy", "narrow", "Enforced")
        reason, message = outcome(finished(team, create_run(team, "boxed", key="x")))
        assert reason == "Denied"
        assert "Policy narrow, rule containers.runtimeClassNames: nowhere is not; allowed: gvisor" in message


@pytest.mark.requirement("G2")
def test_a_container_outlives_the_engine_and_ends_with_its_run(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (engine(**TAGS), grants(SERVERS_IMAGE), workflow("slow", step(script(SLOW))))
    with scene(administrator, *objects) as team:
        becomes(team, "workflow", "slow", "Authorized")
        name = create_run(team, "slow", key="x")
        (pod,) = until("it has a pod", lambda: pods(team))
        until("it runs", lambda: pods(team)[0]["status"].get("phase") == "Running")
        team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
        run = finished(team, name)
        assert (outcome(run)[0], run["status"]["output"]) == ("Completed", "done")
        assert run["status"]["steps"][0]["attempts"] == 1
        name = create_run(team, "slow", key="y")
        (other,) = until(
            "another has one", lambda: [one for one in pods(team) if one["metadata"]["uid"] != pod["metadata"]["uid"]]
        )
        team("patch", "workflowrun", name, "--type=merge", "-p", '{"spec": {"desiredState": "Cancelled"}}')
        assert outcome(finished(team, name))[0] == "Cancelled"
        until("its pod goes", lambda: other["metadata"]["uid"] not in [one["metadata"]["uid"] for one in pods(team)])


def pod(**spec: Any) -> Manifest:
    """Return a pod as the engine makes them, but for what a thief of its token changes."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "step",
        "image": "x",
        "securityContext": restricted,
        "resources": {"limits": {"memory": "1Mi"}},
    }
    owner = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkflowRun", "name": "r", "uid": "u"}
    metadata = {"name": "fairlead-step-x", "labels": {"fairlead.dev/component": "step"}, "ownerReferences": [owner]}
    good = {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": 60,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": good | spec}


def token(audience: str, *more: Manifest) -> Manifest:
    """Return a volume with a token, as the pods of steps that call have it."""
    source = {"serviceAccountToken": {"audience": audience, "path": "token"}}
    return {"name": "token", "projected": {"sources": [source, *more]}}


OWN = "https://engine.NAMESPACE.fairlead.dev"


def sidecar(**more: Any) -> Manifest:
    """Return what takes a step's calls to the engine."""
    step = pod()["spec"]["containers"][0]
    return step | {
        "name": "calls",
        "image": IMAGE,
        "command": ["python3", "-m", "fairlead.stepcalls"],
        "restartPolicy": "Always",
        **more,
    }


def hook(module: str) -> Manifest:
    return {"postStart": {"exec": {"command": ["python3", "-m", module]}}}


FORBIDDEN: dict[str, tuple[Manifest, str]] = {
    "a token": ({"automountServiceAccountToken": True}, "has no token"),
    "a token for the API server": (
        {"volumes": [token("https://kubernetes.default.svc")]},
        "a token for its own engine",
    ),
    "a token for another engine": ({"volumes": [token("https://engine.other.fairlead.dev")]}, "for its own engine"),
    "more than a token": ({"volumes": [token(OWN, {"secret": {"name": "s"}})]}, "for its own engine"),
    "a token for the step": (
        {
            "volumes": [token(OWN)],
            "containers": [
                pod()["spec"]["containers"][0] | {"volumeMounts": [{"name": "token", "mountPath": "/token"}]}
            ],
        },
        "a step's container never sees the token",
    ),
    "a Secret": ({"volumes": [{"name": "s", "secret": {"secretName": "s"}}]}, "no volume but empty ones"),
    "a ConfigMap": ({"volumes": [{"name": "c", "configMap": {"name": "c"}}]}, "no volume but empty ones"),
    # Another policy says no to this one too, and any of them may answer.
    "the engine's account": ({"serviceAccountName": "fairlead-engine"}, "runs as"),
    "the default account": ({"serviceAccountName": "default"}, "as the account of its Workflow"),
    "the node's network": ({"hostNetwork": True}, "nothing of its node"),
    "no deadline": ({"activeDeadlineSeconds": None}, "has a deadline"),
    "a hook of the step": (
        {"containers": [pod()["spec"]["containers"][0] | {"lifecycle": hook("fairlead.steplistens")}]},
        "read nothing but plain values",
    ),
    "a hook of its own": (
        {"initContainers": [sidecar(lifecycle=hook("fairlead.stepfiles"))]},
        "read nothing but plain values",
    ),
    "a hook at the end": (
        {"initContainers": [sidecar(lifecycle={"preStop": hook("fairlead.steplistens")["postStart"]})]},
        "read nothing but plain values",
    ),
    "a probe": (
        {"initContainers": [sidecar(startupProbe={"exec": {"command": ["python3"]}})]},
        "read nothing but plain values",
    ),
    "a Secret in its environment": (
        {
            "containers": [
                pod()["spec"]["containers"][0]
                | {"env": [{"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}
            ]
        },
        "nothing but plain values",
    ),
    "privileges": (
        {"containers": [pod()["spec"]["containers"][0] | {"securityContext": {"allowPrivilegeEscalation": True}}]},
        "containers are restricted",
    ),
    "a helper of its own": (
        {"initContainers": [pod()["spec"]["containers"][0] | {"name": "evil", "image": "evil"}]},
        "beside a step stands what Fairlead brings",
    ),
}


@pytest.mark.requirement("A10")
def test_what_a_thief_of_the_engines_token_makes_of_pods(administrator: Kubectl, chart: Fairlead) -> None:
    with scene(administrator, grants(SERVERS_IMAGE)) as team:
        # Pod Security says no to most of it anyway; here the policies have to.
        administrator("label", "namespace", team.namespace, "pod-security.kubernetes.io/enforce-")
        thief = engine_of(team)
        until("there is the account", lambda: ACCOUNT in team("get", "serviceaccounts", "--output=name"))
        assert tries(thief, pod(initContainers=[sidecar(lifecycle=hook("fairlead.steplistens"))])) == "", "as we do"
        for name, (change, words) in FORBIDDEN.items():
            change = json.loads(json.dumps(change).replace("NAMESPACE", team.namespace))
            spec = {key: value for key, value in (pod()["spec"] | change).items() if value is not None}
            assert words in tries(thief, pod() | {"spec": spec}), name
        other = pod()
        other["metadata"] = {"name": "innocent"}
        said = tries(thief, other)  # by either of two policies
        assert "never does CREATE on pods" in said or "says that it is one" in said
        forger = someone(editor(team), engine_name(team))
        assert "denied request" in tries(forger, pod()), "an editor who impersonates the engine"
        somebody = tries(team, pod())
        assert "made by Fairlead's workloads only" in somebody, "nobody takes the name of a step's pod"


def test_the_example_runs(administrator: Kubectl, chart: Fairlead) -> None:
    texts = [(ROOT / f"examples/container/{name}.yaml").read_text(encoding="utf-8") for name in FILES]
    declared = [yaml.safe_load(text.replace("localhost/fairlead-examples:dev", SERVERS_IMAGE)) for text in texts]
    with scene(administrator, *declared) as team:
        becomes(team, "workflow", "word-count", "Authorized")
        run = finished(team, create_run(team, "word-count", text="the fox and the dog"))
        assert run["status"]["output"] == '5 words, most often ["the","fox","and"]'


@pytest.mark.requirement("A58")
def test_a_policy_that_opens_our_pods_is_told_and_no_container_starts(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (engine(**TAGS), grants(SERVERS_IMAGE), workflow("counts", step(script(REPORT, input={"text": "x"}))))
    wide: Manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "let-all-out"},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]},
    }
    with scene(administrator, *objects) as team:
        becomes(team, "workflow", "counts", "Authorized")
        becomes(team, "engine", "default", "NetworkIsolation", "Untried")
        team.create(wide)
        told = becomes(team, "engine", "default", "NetworkIsolation", "WidenedByPolicy", timeout_seconds=30)
        assert told["message"] == "NetworkPolicy let-all-out lets out pods of steps"
        until(
            "the engine knows", lambda: outcome(finished(team, create_run(team, "counts", key="x")))[0] != "Completed"
        )
        reason, message = outcome(finished(team, create_run(team, "counts", key="x")))
        assert reason == "StepFailed"
        assert "NotIsolated" in message and "NetworkPolicy let-all-out lets out pods of steps" in message
        assert not pods(team)
        team("delete", "networkpolicy", "let-all-out")
        becomes(team, "engine", "default", "NetworkIsolation", "Untried", timeout_seconds=30)
        until("it runs again", lambda: outcome(finished(team, create_run(team, "counts", key="x")))[0] == "Completed")
