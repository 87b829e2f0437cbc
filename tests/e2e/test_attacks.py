"""Attacks on a real cluster, where RBAC and network policies are real. The ledger decides what has happened."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import Cluster
from tests.cluster.layout import Layout
from tests.e2e.identities import give, someone
from tests.e2e.installation import RUN, Fairlead, condition, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    ACCOUNT,
    Listener,
    Manifest,
    asked,
    becomes,
    calls,
    declare,
    engine,
    ledger_tool,
    listening,
    manifest,
    outcome,
    play,
    policy,
    proxy,
    scene,
    scripted_model,
    server,
    tool,
    workflow,
)

pytestmark = pytest.mark.cluster

REVOKED_WITHIN_SECONDS = 15
CANARY = "canary-8e1f6d2c"
INTRUDER = ("python3", "-c", (Path(__file__).parent / "intruder.py").read_text(encoding="utf-8"))
WORK = workflow("work", calls("append", "work"))
"""The same in both namespaces; granted in one."""

UNGRANTED = (
    workflow("ungranted", calls("append_keyed", "ungranted")),
    workflow(ACCOUNT, calls("append", "renamed"), account="nobody"),
)


@dataclass(frozen=True, slots=True)
class Outside:
    """Two hosts outside the cluster: the Tool `remote` starts at the honest one."""

    honest: Listener
    attacker: Listener


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    address = Cluster().host_address
    with listening(address) as honest, listening(address) as attacker:
        yield Outside(honest, attacker)


@pytest.fixture(scope="module")
def team(administrator: Kubectl, outside: Outside) -> Iterator[Kubectl]:
    """A namespace whose account may append to the ledger and call the remote Tool."""
    authorities = [outside.honest.authority, outside.attacker.authority]
    credential = {"secretRef": {"name": "key", "key": "token"}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "key"},
        "stringData": {"token": CANARY, "allowed-hosts": f"http://{outside.honest.authority}"},
    }
    objects = (
        secret,
        engine(security={"allowedPrivateHosts": authorities}),
        ledger_tool(),
        scripted_model(),
        tool("remote", {"url": f"http://{outside.honest.authority}/mcp"}, credential=credential),
        policy("granted", "append", "read", "slow"),
        policy("remote", "read", tools=["remote"]),
        policy("revoked", "slow", account="revoked"),
        WORK,
        *UNGRANTED,
    )
    with scene(administrator, *objects) as kubectl:
        becomes(kubectl, "model", "scripted", "Ready", timeout_seconds=240)
        becomes(kubectl, "tool", "ledger", "Reachable", timeout_seconds=240)
        becomes(kubectl, "workflow", "work", "Authorized")
        yield kubectl


@pytest.fixture(scope="module")
def stranger(administrator: Kubectl) -> Iterator[Kubectl]:
    """Another namespace with the same names, where nothing is granted."""
    with scene(administrator, engine(), ledger_tool(), WORK) as kubectl:
        yield kubectl


@pytest.fixture(scope="module")
def refused(team: Kubectl, stranger: Kubectl) -> dict[str, tuple[Kubectl, Manifest]]:
    """Runs that are refused, ended, by their Workflow's name. Each waits half a minute for a grant: all at once."""
    becomes(stranger, "tool", "ledger", "Reachable", timeout_seconds=240)
    where = {"ungranted": team, ACCOUNT: team, "work": stranger}
    names = {name: create_run(kubectl, name) for name, kubectl in where.items()}
    return {name: (kubectl, finished(kubectl, names[name])) for name, kubectl in where.items()}


def keys(kubectl: Kubectl) -> set[str]:
    return {entry["key"] for entry in ledger(kubectl)}


class TestGrants:
    @pytest.mark.requirement("A03")
    def test_what_is_not_granted_is_named_and_does_not_happen(
        self, team: Kubectl, refused: dict[str, tuple[Kubectl, Manifest]]
    ) -> None:
        authorized = becomes(team, "workflow", "ungranted", "Authorized", "False")
        assert authorized["reason"] == "MissingGrants"
        assert f"{ACCOUNT} needs invoke on toolfunctions/ledger.append_keyed" in authorized["message"]
        assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/ledger.append_keyed" in authorized["message"]
        reason, message = outcome(refused["ungranted"][1])
        assert reason == "Denied"
        assert "ledger.append_keyed" in message
        assert "ungranted" not in keys(team)

    @pytest.mark.requirement("A56")
    def test_a_workflow_that_is_named_and_labelled_like_a_grant_collects_none(
        self, team: Kubectl, refused: dict[str, tuple[Kubectl, Manifest]]
    ) -> None:
        team("label", "workflow", ACCOUNT, "policy=granted", "fairlead.dev/name=granted")
        assert outcome(refused[ACCOUNT][1])[0] == "Denied"
        becomes(team, "workflow", ACCOUNT, "Authorized", "False")
        assert "renamed" not in keys(team)

    def test_a_grant_holds_in_its_namespace_alone(
        self, team: Kubectl, stranger: Kubectl, refused: dict[str, tuple[Kubectl, Manifest]]
    ) -> None:
        assert outcome(refused["work"][1])[0] == "Denied"
        assert ledger(stranger) == []
        assert outcome(finished(team, create_run(team, "work")))[0] == "Completed"
        assert "work" in keys(team)
        assert ledger(stranger) == [], "the same names, another namespace"

    @pytest.mark.requirement("A59")
    def test_who_may_not_invoke_a_workflow_cannot_start_it(self, team: Kubectl) -> None:
        declare(team, workflow("private", calls("append", "private")))
        give(team, "eve", ("fairlead.dev", "workflowruns", ["create"], None))
        eve = someone(team, "eve")
        start = {"metadata": {"generateName": "eve-"}, "spec": {"workflow": "private"}}
        body = json.dumps({"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkflowRun", **start})
        refusal = eve.refusal("create", "--filename=-", stdin=body)
        assert 'eve needs the verb "invoke" on workflows.fairlead.dev/private' in refusal
        assert "private" not in keys(team)

    @pytest.mark.requirement("A04")
    def test_a_revoked_grant_stops_the_next_call(self, team: Kubectl) -> None:
        again = {"until": "false", "maxIterations": 200}
        step = calls("slow", "revoked", seconds=0.5) | {"repeat": again}
        declare(team, workflow("endless", step, account="revoked"))
        becomes(team, "workflow", "endless", "Authorized")
        name = create_run(team, "endless")
        until("calls go through", lambda: effects(team, "revoked") >= 2)
        revoked_at = time.time()
        team("delete", "policy", "revoked")
        run = finished(team, name, timeout_seconds=60)
        assert outcome(run)[0] == "Denied"
        assert run["status"]["denials"] == 1
        happened = [entry["at"] for entry in ledger(team) if entry["key"] == "revoked"]
        assert max(happened) < revoked_at + REVOKED_WITHIN_SECONDS


def effects(kubectl: Kubectl, key: str) -> int:
    return sum(entry["key"] == key for entry in ledger(kubectl))


class TestAgents:
    @pytest.mark.requirement("A05")
    @pytest.mark.parametrize("function", ["append", "append_keyed", "erase"], ids=["granted", "listed", "unheard-of"])
    def test_a_model_gets_no_function_that_it_was_not_offered(self, team: Kubectl, function: str) -> None:
        agent = {
            "model": "scripted",
            "prompt": f"Please use {function} now.",
            "tools": [{"tool": "ledger", "functions": ["read"]}],
        }
        name = f"agent-{function.replace('_', '-')}"
        declare(team, workflow(name, {"name": "agent", "agent": agent}))
        becomes(team, "workflow", name, "Authorized")
        call = {"name": f"ledger__{function}", "arguments": {"key": f"sneaked-{function}"}}
        play(team, {"when": {"toolResults": 0}, "toolCalls": [call]}, {"content": "I gave up."})
        run = finished(team, create_run(team, name))
        assert outcome(run)[0] == "Completed"
        assert run["status"]["denials"] == 1
        assert run["status"]["usage"]["toolCalls"] == 0
        assert f"sneaked-{function}" not in keys(team)
        assert told(team) == ["not permitted"]


def told(kubectl: Kubectl) -> list[str]:
    """Return the tool results in the last request that the model got."""
    bodies = [request["body"] for request in asked(kubectl) if request.get("body")]  # a probe has none
    body = bodies[-1]
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


class TestServers:
    @pytest.mark.requirement("A13")
    def test_servers_reach_nothing_and_hold_no_token(self, team: Kubectl, outside: Outside) -> None:
        targets = {**inside(team), "outside": [outside.attacker.address, outside.attacker.port]}
        spec = server(*INTRUDER, TARGETS=json.dumps(targets))
        model = {"server": spec | {"api": "OpenAIChat", "model": "m"}}
        declare(team, tool("intruder", {"server": spec}), manifest("Model", "intruder", model))
        for kind in ("tool", "model"):
            becomes(team, kind, "intruder", "Ready")
            report = json.loads(team("get", "--raw", proxy(team, f"fairlead-{kind}-intruder", "/")))
            tried: dict[str, str] = report["tried"]
            assert tried.pop("itself") == "yes"
            assert set(tried) == {*targets, "name"}
            assert {name: answer for name, answer in tried.items() if not answer.startswith("no")} == {}, kind
            assert (report["token"], report["mounted"]) == (False, [])

    @pytest.mark.requirement("A13")
    def test_a_server_does_not_start_while_its_pod_can_get_out(self, team: Kubectl) -> None:
        pods = {"matchLabels": {"fairlead.dev/name": "early"}}
        opening = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "opening"},
            "spec": {"podSelector": pods, "policyTypes": ["Egress"], "egress": [{}]},
        }
        declare(team, opening, ledger_tool() | {"metadata": {"name": "early"}})

        def told() -> str:
            return str(condition(team.get("tool", "early"), "Ready").get("message"))

        until("the Tool says that its pod can get out", lambda: "could reach the API server" in told())
        (pod,) = team.get("pods", "--selector=fairlead.dev/name=early")["items"]
        (container,) = pod["status"]["containerStatuses"]
        assert container["state"] == {"waiting": {"reason": "PodInitializing"}}
        team("delete", "networkpolicy", "opening")
        becomes(team, "tool", "early", "Ready")


def inside(kubectl: Kubectl) -> dict[str, list[Any]]:
    """Return what there is to attack in a cluster: name to host and port."""
    (node,) = kubectl.get("nodes")["items"][:1]
    address = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    system = kubectl.within("kube-system").get("services")["items"]
    dns = next(one for one in system if 53 in {port["port"] for port in one["spec"]["ports"]})

    def service(name: str, namespace: str) -> str:
        return str(kubectl.within(namespace).get("service", name)["spec"]["clusterIP"])

    return {
        "API server": [service("kubernetes", "default"), 443],
        "API server at the node": [address, 6443],
        "kubelet": [address, 10250],
        "metadata": ["169.254.169.254", 80],
        "engine": [service("fairlead-engine", kubectl.namespace), 8443],
        "another server": [service("fairlead-tool-ledger", kubectl.namespace), 8080],
        "dns": [dns["spec"]["clusterIP"], 53],
    }


class TestCredentials:
    @pytest.mark.requirement("A18")
    def test_a_changed_url_does_not_take_the_credential_along(self, team: Kubectl, outside: Outside) -> None:
        def credentials(listener: Listener) -> set[str]:
            return {headers.get("authorization", "") for _, headers, _ in listener.requests}

        declare(team, workflow("remote", calls("read", "x", tool="remote")))
        becomes(team, "workflow", "remote", "Authorized")
        honest = finished(team, create_run(team, "remote"))
        assert outcome(honest)[0] != "Denied"
        assert credentials(outside.honest) == {f"Bearer {CANARY}"}

        url = {"spec": {"mcp": {"url": f"http://{outside.attacker.authority}/mcp"}}}
        team("patch", "tool", "remote", "--type=merge", "-p", json.dumps(url))
        becomes(team, "tool", "remote", "Reachable", "EgressDenied")
        denied = finished(team, create_run(team, "remote"))
        reason, message = outcome(denied)
        assert reason == "Denied"
        assert "EgressDenied" in message
        assert outside.attacker.requests == []
        assert CANARY not in team("get", RUN, "--output=yaml")

    @pytest.mark.requirement("A22")
    def test_the_secret_is_nowhere_but_in_its_secret(self, team: Kubectl, fairlead: Fairlead, outside: Outside) -> None:
        """After a run that has sent it: in no object but the Secret, in no log, no metric, and not in the store."""
        url = {"spec": {"mcp": {"url": f"http://{outside.honest.authority}/mcp"}}}
        team("patch", "tool", "remote", "--type=merge", "-p", json.dumps(url))
        declare(team, workflow("again", calls("read", CANARY[::-1], tool="remote")))
        becomes(team, "workflow", "again", "Authorized")
        name = create_run(team, "again")
        finished(team, name)
        assert outside.honest.requests, "it was sent"
        kinds = "fairlead,all,configmaps,events,roles,rolebindings,networkpolicies,leases"
        metrics = f"/api/v1/namespaces/{team.namespace}/services/fairlead-engine:8080/proxy/metrics"
        operator = fairlead.kubectl.within("fairlead-system")
        found = {
            "objects": team("get", kinds, "--output=yaml", "--show-managed-fields"),
            "the engine's log": team("logs", "fairlead-engine-0"),
            "the operator's log": operator("logs", "deployment/fairlead-operator"),
            "metrics": team("get", "--raw", metrics),
        }
        volumes = Layout(Cluster().name).volumes
        folders = volumes.glob(f"{team.namespace}-data-fairlead-engine-0-*")
        for file in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
            found[f"the engine's {file.name}"] = file.read_bytes().decode("latin-1")
        assert any("journal" in place for place in found)
        assert CANARY[::-1] in "".join(found.values()), "what is no secret is found"
        encoded = base64.b64encode(CANARY.encode()).decode().rstrip("=")
        leaks = [place for place, text in found.items() if CANARY in text or encoded in text or CANARY[:8] in text]
        assert leaks == []
