"""The operator on a real cluster: what is declared is built, stays built, says why not, and goes with its owner."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.e2e.installation import FOR_TESTS, IMAGE, RELEASE, RESTRICTED, SYSTEM, Fairlead, condition, until
from tests.e2e.kubectl import Kubectl
from tests.specimens import changed, specimen

pytestmark = pytest.mark.cluster

# Our own image is on the node and holds a Python, so it makes a server that needs no pull.
SERVER = {"image": IMAGE, "command": ["python3", "-m", "http.server", "9000", "--directory", "/tmp"], "port": 9000}


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


@pytest.fixture
def team(kubectl: Kubectl, namespace: str) -> Kubectl:
    """A namespace that enforces Pod Security `restricted`."""
    kubectl("label", "namespace", namespace, RESTRICTED)
    return kubectl


def policy(*accounts: str, name: str = "triage", **grants: Any) -> dict[str, Any]:
    spec = {"grants": {"serviceAccounts": list(accounts), **grants}}
    return specimen("Policy") | {"metadata": {"name": name}, "spec": spec}


def wait_for(kubectl: Kubectl, kind: str, name: str, reason: str) -> dict[str, Any]:
    """Wait until Ready has this reason, and return the condition."""

    def ready() -> dict[str, Any]:
        found = condition(kubectl.get(kind, name), "Ready")
        return found if found.get("reason") == reason else {}

    return dict(until(f"{kind} {name} is {reason}", ready))


def allowed(kubectl: Kubectl, account: str, resource: str, name: str) -> bool:
    """Ask the API server whether the account may invoke something."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": kubectl.namespace},
        "spec": {
            "user": f"system:serviceaccount:{kubectl.namespace}:{account}",
            "resourceAttributes": {
                "namespace": kubectl.namespace,
                "group": "fairlead.dev",
                "resource": resource,
                "name": name,
                "verb": "invoke",
            },
        },
    }
    answer = json.loads(kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


def looks_at(namespace: str) -> dict[str, Any]:
    """Return a pod that says again and again which ports of a namespace's engine it can reach."""
    program = f"""
import socket, time
def reaches(port):
    try:
        socket.create_connection(("fairlead-engine.{namespace}.svc.cluster.local", port), 1).close()
    except OSError:
        return False
    return True
while True:
    print(*filter(reaches, (8443, 8080)), flush=True)
    time.sleep(1)
"""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["python3", "-c", program],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": security, "automountServiceAccountToken": False}
    spec["terminationGracePeriodSeconds"] = 0
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "scraper"}, "spec": spec}


class TestGrants:
    def test_a_policys_grants_are_permissions_until_it_goes(self, team: Kubectl) -> None:
        team.create(policy("triage", models=["small"], tools=[{"tool": "tickets", "functions": ["search"]}]))
        wait_for(team, "policy", "triage", "Ready")
        assert allowed(team, "triage", "models", "small")
        assert allowed(team, "triage", "toolfunctions", "tickets.search")
        assert not allowed(team, "triage", "tools", "tickets")
        assert not allowed(team, "default", "models", "small")
        team("patch", "policy", "triage", "--type=merge", "-p", '{"spec": {"grants": {"models": ["large"]}}}')
        until("the grant moved", lambda: allowed(team, "triage", "models", "large"))
        assert not allowed(team, "triage", "models", "small")
        team("delete", "policy", "triage")
        until("the grant is gone", lambda: not allowed(team, "triage", "models", "large"))
        until("the account is gone", lambda: "triage" not in team("get", "serviceaccounts", "--output=name"))

    def test_an_account_goes_with_the_last_policy_that_names_it(self, team: Kubectl) -> None:
        for name in ("one", "two"):
            team.create(policy("shared", name=name))
            wait_for(team, "policy", name, "Ready")
        team("delete", "policy", "one")
        until("one's role is gone", lambda: "fairlead-grant-one" not in team("get", "roles", "--output=name"))
        owners = team.get("serviceaccount", "shared")["metadata"]["ownerReferences"]
        assert "two" in {owner["name"] for owner in owners}
        team("delete", "policy", "two")
        until("the account is gone", lambda: "shared" not in team("get", "serviceaccounts", "--output=name"))

    @pytest.mark.requirement("A55")
    def test_an_account_that_exists_is_not_taken_over_without_its_owners_word(self, team: Kubectl) -> None:
        team("create", "serviceaccount", "deployer")
        team.create(policy("triage", "deployer", models=["small"]))
        refused = wait_for(team, "policy", "triage", "AccountConflict")
        assert "deployer" in refused["message"]
        assert condition(team.get("policy", "triage"), "Stalled")["status"] == "True"
        assert not allowed(team, "triage", "models", "small"), "all or nothing"
        team("annotate", "serviceaccount", "deployer", "fairlead.dev/adopt=true")
        team("label", "policy", "triage", "look=again")
        wait_for(team, "policy", "triage", "Ready")
        assert allowed(team, "deployer", "models", "small")
        metadata = team.get("serviceaccount", "deployer")["metadata"]
        assert "ownerReferences" not in metadata
        assert "labels" not in metadata

    @pytest.mark.requirement("A55")
    @pytest.mark.parametrize("account", ["default", "fairlead-engine"])
    def test_reserved_accounts_are_granted_nothing(self, team: Kubectl, account: str) -> None:
        team.create(policy(account, models=["small"]))
        wait_for(team, "policy", "triage", "ReservedAccount")
        assert not allowed(team, account, "models", "small")

    @pytest.mark.requirement("A56")
    def test_a_relabelled_or_renamed_workflow_collects_no_grants(self, team: Kubectl) -> None:
        team.create(policy("triage", models=["small"]))
        wait_for(team, "policy", "triage", "Ready")
        spec = {"steps": [{"name": "a", "transform": {"value": 1}}]}
        team.create(
            {**specimen("Workflow"), "metadata": {"name": "triage", "labels": {"policy": "triage"}}, "spec": spec}
        )
        assert not allowed(team, "fairlead-none", "models", "small")

    def test_a_binding_that_somebody_deleted_comes_back(self, team: Kubectl) -> None:
        team.create(policy("triage", models=["small"]))
        wait_for(team, "policy", "triage", "Ready")
        team("delete", "rolebinding", "fairlead-grant-triage")
        until("the grant is back", lambda: allowed(team, "triage", "models", "small"))


class TestServers:
    def test_a_server_runs_restricted_and_goes_with_its_tool(self, team: Kubectl) -> None:
        team.create(changed(specimen("Tool"), {"spec.mcp": {"server": SERVER}}))
        team("wait", "--for=condition=Ready", "tool/tickets", "--timeout=90s", timeout_seconds=100)
        (pod,) = team.get("pods", "--selector=fairlead.dev/component=tool")["items"]
        assert pod["metadata"]["name"].startswith("fairlead-tool-tickets-")
        assert not [volume for volume in pod["spec"]["volumes"] if "emptyDir" not in volume], "no token came in either"
        team(
            "patch",
            "tool",
            "tickets",
            "--type=json",
            "-p",
            '[{"op": "replace", "path": "/spec/mcp", "value": {"url": "https://a.example/mcp"}}]',
        )
        until("the server is gone", lambda: "fairlead-tool" not in team("get", "all,networkpolicies", "--output=name"))
        team("delete", "tool", "tickets")

    def test_where_nothing_changes_nothing_is_written(self, team: Kubectl) -> None:
        """An object that every apply changes is an event, and the next apply: that would never end."""
        team.create(changed(specimen("Tool"), {"spec.mcp": {"server": SERVER}}))
        team.create(policy("triage", models=["small"]))
        team("wait", "--for=condition=Ready", "tool/tickets", "--timeout=90s", timeout_seconds=100)
        kinds = "networkpolicies,services,deployments,statefulsets,serviceaccounts,roles,rolebindings,configmaps"

        def versions() -> str:
            shown = "--output=custom-columns=:.kind,:.metadata.name,:.metadata.resourceVersion"
            return team("get", f"{kinds},tools,policies,engines", shown)

        looks: list[str] = []

        def at_rest() -> bool:
            looks.append(versions())
            return len(looks) > 1 and looks[-1] == looks[-2]

        until("the namespace is at rest", at_rest, timeout_seconds=60, every_seconds=6)

    @pytest.mark.requirement("F09")
    def test_a_server_that_cannot_start_says_why(self, team: Kubectl) -> None:
        server = SERVER | {"image": "localhost/there-is-no-such-image:1"}
        team.create(changed(specimen("Tool"), {"spec.mcp": {"server": server}}))

        def reason() -> bool:
            ready = condition(team.get("tool", "tickets"), "Ready")
            return ready.get("reason") == "ServerNotReady" and "there-is-no-such-image" in ready["message"]

        until("the condition names the image", reason)


class TestEngines:
    def test_the_first_object_brings_an_engine_with_everything_it_needs(self, team: Kubectl) -> None:
        team.create(specimen("Policy") | {"spec": {}})
        until("the engine's pod is made", lambda: "fairlead-engine-0" in team("get", "pods", "--output=name"))
        assert team.get("engine", "default")["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "fairlead"
        names = team("get", "serviceaccounts,services,configmaps,networkpolicies,rolebindings", "--output=name").split()
        assert {
            "serviceaccount/fairlead-engine",
            "serviceaccount/fairlead-viewer",
            "serviceaccount/fairlead-none",
            "service/fairlead-engine",
            "configmap/fairlead-engine-ca",
            "networkpolicy.networking.k8s.io/fairlead-engine",
            "rolebinding.rbac.authorization.k8s.io/fairlead-engine",
        } <= set(names)
        engine = f"--as=system:serviceaccount:{team.namespace}:fairlead-engine"
        assert team("auth", "can-i", "list", "workflows", engine).strip() == "yes"
        assert "no" in team.refusal("auth", "can-i", "get", "secrets", engine)

    def test_the_journal_outlives_the_engine(self, team: Kubectl) -> None:
        team.create(specimen("Policy") | {"spec": {}})
        until("the volume is claimed", lambda: "data-fairlead-engine-0" in team("get", "pvc", "--output=name"))
        before = team.get("pvc", "data-fairlead-engine-0")["metadata"]["uid"]
        first = team.get("engine", "default")["metadata"]["uid"]
        team("delete", "engine", "default")
        until("the operator makes another", lambda: "default" in team("get", "engines", "--output=name"))
        assert team.get("engine", "default")["metadata"]["uid"] != first
        until("its pod is back", lambda: "fairlead-engine-0" in team("get", "pods", "--output=name"))
        assert team.get("pvc", "data-fairlead-engine-0")["metadata"]["uid"] == before

    @pytest.mark.requirement("A52")
    def test_metrics_are_for_namespaces_that_may_scrape(self, administrator: Kubectl, team: Kubectl) -> None:
        """The engine becomes ready meanwhile: probes get through."""
        team.create(specimen("Policy") | {"spec": {}})
        team.create(looks_at(team.namespace))
        team("wait", "--for=condition=Ready", "engine/default", "--timeout=120s", timeout_seconds=130)

        def answered() -> list[str]:
            return team("logs", "scraper", "--tail=1").split()

        until("it is shut", lambda: answered() == ["8443"], timeout_seconds=60)
        administrator("label", "namespace", team.namespace, "fairlead.dev/scrapes=Allowed")
        until("it is open", lambda: answered() == ["8443", "8080"], timeout_seconds=60)

    @pytest.mark.requirement("A58")
    def test_what_somebody_adds_to_a_network_policy_of_ours_is_taken_back(self, team: Kubectl) -> None:
        team.create(specimen("Policy") | {"spec": {}})
        until("it is there", lambda: "fairlead-step" in team("get", "networkpolicies", "--output=name"))
        planned = team.get("networkpolicy", "fairlead-step")["spec"]
        # Admission refuses it to people; one whom it lets through gets no further.
        somebody = ("--as=system:kube-controller-manager", "--as-group=system:masters")
        opened = json.dumps({"spec": {"egress": [{}]}})
        team("patch", "networkpolicy", "fairlead-step", "--type=merge", "-p", opened, *somebody)
        until("it is as planned", lambda: team.get("networkpolicy", "fairlead-step")["spec"] == planned)
        until("it is told", lambda: "somebody added egress" in team("get", "events"))

    def test_a_second_engine_is_refused_by_name(self, team: Kubectl) -> None:
        second = changed(specimen("Engine"), {"metadata.name": "second", "spec": {}})
        assert "its name is default" in team.refusal("create", "--filename=-", stdin=json.dumps(second))

    def test_a_run_alone_brings_an_engine_too(self, team: Kubectl) -> None:
        team.create(specimen("WorkflowRun") | {"spec": {"workflow": "nowhere"}})
        until("the engine is made", lambda: "default" in team("get", "engines", "--output=name"), timeout_seconds=180)


class TestWorkflows:
    def test_a_workflow_says_what_is_wrong_and_where(self, team: Kubectl) -> None:
        spec = {"steps": [{"name": "a", "generate": {"model": "none", "prompt": "x"}}]}
        team.create({**specimen("Workflow"), "metadata": {"name": "w"}, "spec": spec})
        ready = wait_for(team, "workflow", "w", "UnknownReference")
        assert "spec.steps[0].generate.model" in ready["message"]
        model = changed(specimen("Model"), {"metadata.name": "none"})
        model["spec"] = {"endpoint": {"api": "OpenAIChat", "url": "https://a.example/v1", "model": "m"}}
        team.create(model)

        def cured() -> bool:
            return condition(team.get("workflow", "w"), "Ready").get("reason") in ("Ready", "EngineNotReady")

        until("the reference is found", cured)


@pytest.mark.requirement("F01")
def test_a_killed_operator_goes_on_where_the_cluster_stands(fairlead: Fairlead, team: Kubectl) -> None:
    system = fairlead.kubectl.within(SYSTEM)
    team.create(policy("before", name="before", models=["small"]))
    wait_for(team, "policy", "before", "Ready")
    system("delete", "pod", "--selector=app.kubernetes.io/name=fairlead-operator", "--grace-period=0", "--force")
    team("delete", "policy", "before")
    team.create(policy("after", name="after", models=["small"]))
    wait_for(team, "policy", "after", "Ready")
    until("what went meanwhile is gone", lambda: not allowed(team, "before", "models", "small"))


def test_uninstalling_leaves_what_people_wrote_the_crds_and_the_journal(fairlead: Fairlead, team: Kubectl) -> None:
    team.create(policy("triage", models=["small"]))
    wait_for(team, "policy", "triage", "Ready")
    until("the volume is claimed", lambda: "data-fairlead-engine-0" in team("get", "pvc", "--output=name"))
    try:
        fairlead.helm("uninstall", RELEASE, "--timeout=150s")
        left = team("get", "all,serviceaccounts,roles,rolebindings,networkpolicies,engines", "--output=name").split()
        assert left == ["serviceaccount/default"]
        assert "policy.fairlead.dev/triage" in team("get", "policies", "--output=name")
        assert "data-fairlead-engine-0" in team("get", "pvc", "--output=name")
        assert not allowed(team, "triage", "models", "small")
        assert "fairlead" not in team("get", "validatingadmissionpolicies,clusterroles", "--output=name")
    finally:
        fairlead.install(*FOR_TESTS)
    until("the grant is back", lambda: allowed(team, "triage", "models", "small"))
