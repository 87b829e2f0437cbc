"""Containers that call models and tools on a real cluster: agents with stock clients, thieves, and crashes."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import yaml
from tests.cluster.commands import run as run_program
from tests.e2e.callers import AGENT, CLIENT, INTRUDER, SLOW_WRITER
from tests.e2e.identities import token_of
from tests.e2e.installation import ROOT, SERVERS_IMAGE, Fairlead, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    ACCOUNT,
    Manifest,
    asked,
    becomes,
    engine,
    ledger_tool,
    manifest,
    outcome,
    play,
    scene,
    scripted_model,
    workflow,
)

pytestmark = pytest.mark.cluster

EXAMPLE = ("engine", "handbook", "model", "policy", "workflow")
OFFERED = ["read", "append", "append_keyed"]


def calling(name: str, source: str, *functions: str, **container: Any) -> Manifest:
    """Return a Workflow whose container runs a program that may call the scripted model and the ledger."""
    step: Manifest = {
        "image": SERVERS_IMAGE,
        "script": {"command": ["python3"], "source": CLIENT + source},
        "input": "$( input )",
        "models": ["scripted"],
        "tools": [{"tool": "ledger", "functions": list(functions or OFFERED)}],
        "resources": {"cpu": "200m", "memory": "512Mi"},
        **container,
    }
    work = {"name": "work", "container": step, "timeoutSeconds": 150, "retry": {"limit": 0}}
    return workflow(name, work, output="$( steps.work.output )")


def granting(*functions: str) -> Manifest:
    grants = {
        "serviceAccounts": [ACCOUNT],
        "images": [SERVERS_IMAGE],
        "models": ["scripted"],
        "tools": [{"tool": "ledger", "functions": list(functions)}],
    }
    return manifest("Policy", "worker", {"grants": grants})


def keyed_ledger() -> Manifest:
    tool = ledger_tool()
    for function in tool["spec"]["functions"]:
        if function["name"] == "append_keyed":
            function["idempotency"] = {"header": "Idempotency-Key"}
    return tool


HERE = (engine(security={"imageTags": "Allowed"}), keyed_ledger(), scripted_model())


def kubelets_token(team: Kubectl, pod: Manifest) -> str:
    """Return a token as the kubelet gets it for a step's pod."""
    return token_of(team, pod, ACCOUNT, f"--audience=https://engine.{team.namespace}.fairlead.dev", "--duration=600s")


def running_pod(team: Kubectl) -> Manifest:
    def holds() -> Manifest | None:
        pods = team.get("pods", "--selector=fairlead.dev/component=step")["items"]
        return next((pod for pod in pods if pod["status"].get("phase") == "Running"), None)

    return dict(until("a step's pod runs", holds))


def test_an_agent_in_a_container_works_with_stock_clients(administrator: Kubectl, chart: Fairlead) -> None:
    with scene(administrator, *HERE, granting(*OFFERED), calling("agent", AGENT)) as team:
        becomes(team, "workflow", "agent", "Authorized")
        becomes(team, "model", "scripted", "Reachable", timeout_seconds=240)
        becomes(team, "tool", "ledger", "Reachable", timeout_seconds=240)
        call = {"name": "append", "arguments": {"key": "written"}}
        play(team, {"when": {"toolResults": 0}, "toolCalls": [call]}, {"when": {"toolResults": 1}, "content": "Noted."})
        run = finished(team, create_run(team, "agent", task="Note it."))
        assert outcome(run)[0] == "Completed", outcome(run)
        assert run["status"]["output"] == {"answer": "Noted.", "offered": OFFERED, "turns": 4}
        assert [entry["key"] for entry in ledger(team)] == ["written"]
        usage = run["status"]["usage"]
        assert (usage["modelCalls"], usage["toolCalls"]) == (2, 2), "the container's own call counts as one"
        assert run["status"]["audit"]["records"] >= 8


@pytest.mark.requirement("A05", "A06", "A09", "A13", "A61")
def test_what_an_intruder_in_a_container_gets(
    administrator: Kubectl, chart: Fairlead, cluster_environment: dict[str, str]
) -> None:
    slow = calling("slow", "time.sleep(60)")
    objects = (*HERE, granting("read"), slow, calling("intruder", INTRUDER, "read", "append"))
    with scene(administrator, *objects) as team:
        becomes(team, "model", "scripted", "Reachable", timeout_seconds=240)
        becomes(team, "tool", "ledger", "Reachable", timeout_seconds=240)
        becomes(team, "workflow", "slow", "Authorized", "False")  # it names functions that are not granted
        team.create(
            manifest("Policy", "later", {"grants": {"serviceAccounts": [ACCOUNT], "tools": [{"tool": "ledger"}]}})
        )
        for name in ("slow", "intruder"):
            becomes(team, "workflow", name, "Authorized")
        gone = create_run(team, "slow", key="gone")
        old = kubelets_token(team, running_pod(team))
        team("patch", "workflowrun", gone, "--type=merge", "-p", '{"spec": {"desiredState": "Cancelled"}}')
        finished(team, gone)
        until("its pod is gone", lambda: not team.get("pods", "--selector=fairlead.dev/component=step")["items"])
        victim = create_run(team, "slow", key="victim")
        stolen = kubelets_token(team, running_pod(team))
        services = {
            name: team.get("service", name)["spec"]["clusterIP"]
            for name in ("fairlead-engine", "fairlead-tool-ledger", "fairlead-model-scripted")
        }
        ways: list[list[Any]] = [[services["fairlead-engine"], port] for port in (8443, 8444, 8080)]
        ways += [[services["fairlead-tool-ledger"], 8080], [services["fairlead-model-scripted"], 8080]]
        ways += [["10.96.0.1", 443], ["169.254.169.254", 80], ["10.250.0.2", 10250]]
        api = team("create", "token", ACCOUNT).strip()
        given = {"namespace": team.namespace, "old": old, "stolen": stolen, "api": api, "ways": ways}
        name = create_run(team, "intruder", **given)
        team("delete", "policy", "later")  # what the step names is not granted any more when it is asked for
        run = finished(team, name)
        assert outcome(run)[0] == "Completed", outcome(run)
        found = run["status"]["output"]
        assert set(found["provider"].values()) == {400}, found["provider"]
        refused = {"error": {"message": "not permitted", "type": "fairlead", "param": None, "code": "not_permitted"}}
        assert found["other model"][0] == 403 and json.loads(found["other model"][1]) == refused
        assert found["responses"] == 404
        assert found["hidden"] == found["not granted"] == found["no such"] == found["other tool"]
        assert found["hidden"]["result"]["content"] == [{"type": "text", "text": "not permitted"}]
        assert found["mismatch"] == 400
        nobody, stale = [401, '{"error":"Unauthenticated"}'], [403, '{"error":"StaleAttempt"}']
        assert found["no token"] == found["nothing"] == found["other use"] == nobody
        assert found["stolen"] == stale, "another pod's token is no use from elsewhere"
        assert found["old"] == stale, "nor is one of an attempt that is over"
        assert found["open"] == [] and found["files"] == []
        assert ledger(team) == [] and [one for one in asked(team) if one["method"] == "POST"] == []
        assert run["status"]["denials"] == 5
        for whose, why in ((victim, "the pod is elsewhere, or ends"), (gone, "no step's container that is under way")):
            program = (sys.executable, "-m", "fairlead.cli", "audit", "export", whose, f"--namespace={team.namespace}")
            records = [json.loads(line) for line in run_program(*program, env=cluster_environment).splitlines()]
            (denied,) = [record for record in records if record["type"] == "DENY"]
            assert denied["why"]["message"].startswith(why) and denied["who"]["address"]
        team("patch", "workflowrun", victim, "--type=merge", "-p", '{"spec": {"desiredState": "Cancelled"}}')


@pytest.mark.requirement("G1", "G2")
def test_a_containers_calls_are_made_once_though_the_engine_is_killed(administrator: Kubectl, chart: Fairlead) -> None:
    objects = (*HERE, granting(*OFFERED), calling("writer", SLOW_WRITER))
    with scene(administrator, *objects) as team:
        becomes(team, "workflow", "writer", "Authorized")
        becomes(team, "tool", "ledger", "Reachable", timeout_seconds=240)
        name = create_run(team, "writer", calls=15, name="w")
        for seen in (3, 12):
            until("it is at work", lambda seen=seen: len(ledger(team)) >= seen)
            team("delete", "pod", "fairlead-engine-0", "--grace-period=0", "--force")
        run = finished(team, name)
        assert outcome(run)[0] == "Completed", outcome(run)
        output, effects = run["status"]["output"], [entry["key"] for entry in ledger(team)]
        assert output["calls"] == 30 and run["status"]["steps"][0]["attempts"] == 1
        assert len(effects) == len(set(effects)), "nothing is done twice"
        wanted = {f"w-{function}-{number}" for function in ("append", "append_keyed") for number in range(15)}
        missing = wanted - set(effects)
        assert set(effects) <= wanted and all("keyed" not in key for key in missing)
        assert len(missing) <= output["failed"] <= 2, "what nobody knows the container is told, once for each kill"


def test_the_example_runs(administrator: Kubectl, chart: Fairlead) -> None:
    texts = [(ROOT / f"examples/container-agent/{name}.yaml").read_text(encoding="utf-8") for name in EXAMPLE]
    here = [
        text.replace("localhost/fairlead-examples:dev", SERVERS_IMAGE).replace("/opt/examples", "/opt/servers")
        for text in texts
    ]
    declared = [yaml.safe_load(text) for text in here]
    scripted = scripted_model()
    model = scripted | {"metadata": {"name": "assistant"}}
    with scene(administrator, *(obj for obj in declared if obj["kind"] != "Model"), model) as team:
        becomes(team, "workflow", "own-agent", "Authorized")
        becomes(team, "tool", "handbook", "Reachable", timeout_seconds=240)
        becomes(team, "model", "assistant", "Reachable", timeout_seconds=240)
        call = {"name": "search", "arguments": {"query": "refund"}}
        turns = [{"when": {"toolResults": 0}, "toolCalls": [call]}, {"when": {"toolResults": 1}, "content": "Yes."}]
        play(team, *turns, model="assistant")
        run = finished(team, create_run(team, "own-agent", question="May I return shoes?"))
        assert (outcome(run)[0], run["status"]["output"]) == ("Completed", "Yes."), outcome(run)
