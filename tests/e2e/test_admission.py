"""What the API server refuses on Fairlead's behalf, each with the words that tell why. Nothing here needs a pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.identities import UNINSTALL, bind, engine_of, give, in_pod, operator_of, someone, tries
from tests.e2e.installation import SYSTEM, Fairlead, until
from tests.e2e.kubectl import Kubectl
from tests.specimens import specimen

pytestmark = pytest.mark.cluster

GROUP = "fairlead.dev"
WRITE = ("get", "list", "create", "update", "patch", "delete")
PLAIN = {"steps": [{"name": "a", "transform": {"value": 1}}]}
RUN = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkflowRun", "metadata": {"name": "r"}}
KUBE = "system:serviceaccount:kube-system"
WORKLOADS = {
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "DaemonSet": "apps/v1",
    "ReplicaSet": "apps/v1",
    "ReplicationController": "v1",
    "Job": "batch/v1",
    "CronJob": "batch/v1",
}
TOOL_LABELS = {"fairlead.dev/component": "tool", "fairlead.dev/name": "tickets"}


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


def workflow(account: str | None = None, name: str = "w") -> dict[str, Any]:
    spec = PLAIN | ({"serviceAccountName": account} if account else {})
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name}, "spec": spec}


def pod(name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    containers = [{"name": "x", "image": "x"}]
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers, **spec}}


def workload(kind: str, name: str, **labels: str) -> dict[str, Any]:
    """Return a workload of whose pods the labels are."""
    template = pod("x", {"app": "x"} | labels, restartPolicy="Never" if "Job" in kind else "Always")
    del template["apiVersion"], template["kind"], template["metadata"]["name"]
    spec: dict[str, Any] = {"template": template}
    if "Job" not in kind:
        spec["selector"] = {"app": "x"} if kind == "ReplicationController" else {"matchLabels": {"app": "x"}}
    if kind == "CronJob":
        spec = {"schedule": "* * * * *", "jobTemplate": {"spec": spec}}
    return {"apiVersion": WORKLOADS[kind], "kind": kind, "metadata": {"name": name}, "spec": spec}


def service(name: str, **selector: str) -> dict[str, Any]:
    spec = {"ports": [{"port": 8080}], "selector": selector}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def network_policy(name: str) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": {"fairlead.dev/component": "tool"}}, "policyTypes": ["Egress"]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}


class TestAccounts:
    """C1."""

    @pytest.mark.requirement("A01")
    def test_a_workflow_acts_as_an_account_only_for_who_may_use_it(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "fairlead-edit")
        refusal = tries(alice, workflow("admin-sa"))
        assert 'alice needs the verb "use" on serviceaccounts/admin-sa' in refusal
        assert "w" not in kubectl("get", "workflows", "--output=name")
        assert tries(alice, workflow()) == "", "without an account it has no permissions"
        give(kubectl, "alice", ("", "serviceaccounts", ["use"], "admin-sa"))
        assert tries(alice, workflow("admin-sa")) == ""
        assert "needs the verb" in tries(alice, workflow("other-sa"))

    @pytest.mark.requirement("A02")
    def test_editing_the_steps_of_a_workflow_is_acting_as_its_account(self, kubectl: Kubectl) -> None:
        kubectl.create(workflow("admin-sa"))
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "fairlead-edit")
        steps = '{"spec": {"steps": [{"name": "b", "transform": {"value": 2}}]}}'
        assert '"use" on serviceaccounts/admin-sa' in alice.refusal(
            "patch", "workflow", "w", "--type=merge", "-p", steps
        )
        alice("label", "workflow", "w", "tier=prod")
        alice("patch", "workflow", "w", "--type=merge", "-p", '{"spec": {"serviceAccountName": null}}')

    @pytest.mark.requirement("A55")
    @pytest.mark.parametrize("account", ["default", "fairlead-engine", "fairlead-none", "fairlead-x"])
    def test_reserved_accounts_run_nothing_whoever_asks(self, kubectl: Kubectl, account: str) -> None:
        assert "never runs a Workflow" in tries(kubectl, workflow(account))


class TestRuns:
    """C5."""

    @pytest.mark.requirement("A59")
    def test_a_person_starts_a_workflow_only_with_invoke_on_it(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", (GROUP, "workflowruns", WRITE, None), (GROUP, "workflows", ["invoke"], "mine"))
        assert tries(alice, RUN | {"spec": {"workflow": "mine"}}) == ""
        refusal = tries(alice, RUN | {"spec": {"workflow": "theirs"}})
        assert 'alice needs the verb "invoke" on workflows.fairlead.dev/theirs' in refusal

    def test_a_run_goes_on_only_from_one_that_its_creator_may_read(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        seen = (GROUP, "workflowruns", ["get"], "mine")
        give(kubectl, "alice", (GROUP, "workflowruns", ["create"], None), (GROUP, "workflows", ["invoke"], "w"), seen)
        assert tries(alice, RUN | {"spec": {"workflow": "w", "retryFrom": {"run": "mine"}}}) == ""
        refusal = tries(alice, RUN | {"spec": {"workflow": "w", "retryFrom": {"run": "theirs"}}})
        assert 'alice needs the verb "get" on workflowruns.fairlead.dev/theirs' in refusal

    def test_nobody_takes_the_place_of_a_triggers_run(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "fairlead-edit")
        for label in ("fairlead.dev/trigger", "fairlead.dev/schedule"):
            made = RUN | {"metadata": RUN["metadata"] | {"labels": {label: "paid"}}, "spec": {"workflow": "w"}}
            assert "are for runs that the engine makes" in tries(alice, made)
        engine = engine_of(kubectl)
        give(kubectl, engine.user, (GROUP, "workflowruns", ["create", "get", "patch"], None))
        made = RUN | {"metadata": {"name": "paid", "labels": {"fairlead.dev/trigger": "paid"}}}
        engine.create(made | {"spec": {"workflow": "w"}})
        kubectl.create(RUN | {"spec": {"workflow": "w"}})
        refused = "are for runs that the engine makes"
        assert refused in alice.refusal("label", "workflowrun", "r", "fairlead.dev/trigger=paid")
        assert refused in alice.refusal("label", "workflowrun", "r", "fairlead.dev/schedule=nightly")
        assert refused in alice.refusal("label", "--overwrite", "workflowrun", "paid", "fairlead.dev/trigger=other")
        assert refused in alice.refusal("label", "workflowrun", "paid", "fairlead.dev/trigger-")
        alice("label", "workflowrun", "r", "team=a")
        alice("label", "workflowrun", "paid", "team=a")

    @pytest.mark.requirement("A59")
    def test_nobody_asks_in_somebody_elses_name(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "fairlead-edit")
        assert tries(alice, RUN | {"spec": {"workflow": "w", "requestedBy": "alice"}}) == ""
        refusal = tries(alice, RUN | {"spec": {"workflow": "w", "requestedBy": "bob"}})
        assert "must be absent or alice" in refusal


class TestGrants:
    def test_writing_grants_needs_the_verb_grant(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", (GROUP, "policies", WRITE, None))
        assert 'alice needs the verb "grant" on policies.fairlead.dev/triage' in tries(alice, specimen("Policy"))
        assert tries(alice, specimen("Policy") | {"spec": {}}) == ""
        kubectl.create(specimen("Policy"))
        widen = '{"spec": {"grants": {"models": ["large"]}}}'
        assert '"grant"' in alice.refusal("patch", "policy", "triage", "--type=merge", "-p", widen)
        alice("label", "policy", "triage", "team=a")
        bind(kubectl, "alice", "ClusterRole", "fairlead-admin")
        alice("patch", "policy", "triage", "--type=merge", "-p", widen)

    def test_so_does_a_rule_that_has_runs_make_a_call(self, kubectl: Kubectl) -> None:
        """Else whoever may only restrict could call what the accounts of Workflows may call."""
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", (GROUP, "policies", WRITE, None))
        rules = specimen("Policy")["spec"]["rules"]
        asks, flow = rules["calls"][1]["approval"], rules["dataFlow"]["approval"]
        told = asks.pop("notify")
        told_of_flow = flow.pop("notify")
        policy = specimen("Policy") | {"spec": {"rules": rules}}
        assert tries(alice, policy) == ""
        asks["notify"] = told
        assert 'spec.rules: notify: alice needs the verb "grant"' in tries(alice, policy)
        del asks["notify"]
        flow["notify"] = told_of_flow
        assert 'spec.rules: notify: alice needs the verb "grant"' in tries(alice, policy)
        kubectl.create(policy)
        other = json.dumps({"spec": {"rules": {"dataFlow": {"approval": {"notify": {"function": "remove"}}}}}})
        assert '"grant"' in alice.refusal("patch", "policy", "triage", "--type=merge", "-p", other)
        alice("label", "policy", "triage", "team=a")

    def test_so_does_who_has_more_runs_make_it(self, kubectl: Kubectl) -> None:
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", (GROUP, "policies", WRITE, None))
        rules = specimen("Policy")["spec"]["rules"]
        applied = {"mode": "Audit", "appliesTo": {"workflows": {"matchLabels": {"tier": "prod"}}}}
        kubectl.create(specimen("Policy") | {"spec": applied | {"rules": rules}})
        wider = ('{"spec": {"mode": "Enforce"}}', '{"spec": {"appliesTo": null}}')
        for change in wider:
            refusal = alice.refusal("patch", "policy", "triage", "--type=merge", "-p", change)
            assert 'spec.rules: notify: alice needs the verb "grant"' in refusal
        quiet = {"limits": rules["limits"]}
        kubectl.create({**specimen("Policy"), "metadata": {"name": "quiet"}, "spec": applied | {"rules": quiet}})
        for change in wider:
            alice("patch", "policy", "quiet", "--type=merge", "-p", change)
        bind(kubectl, "alice", "ClusterRole", "fairlead-admin")
        alice("patch", "policy", "triage", "--type=merge", "-p", wider[0])


class TestStatus:
    @pytest.mark.requirement("A12")
    def test_status_is_written_by_fairlead_alone(self, kubectl: Kubectl) -> None:
        kubectl.create(workflow())
        kubectl.create(RUN | {"spec": {"workflow": "w"}})
        kubectl.create(specimen("Policy") | {"spec": {}})
        alice = someone(kubectl, "alice")
        forge = ("--subresource=status", "--type=merge", "--dry-run=server", "-p", '{"status": {"conditions": []}}')
        bind(kubectl, "alice", "ClusterRole", "fairlead-edit")
        assert "workflowruns/status" in alice.refusal("patch", "workflowrun", "r", *forge), "RBAC already says no"
        give(
            kubectl,
            "alice",
            (GROUP, "workflowruns/status", ["get", "patch"], None),
            (GROUP, "workflows/status", ["get", "patch"], None),
        )
        for kind, name in (("workflowrun", "r"), ("workflow", "w")):
            refusal = alice.refusal("patch", kind, name, *forge)
            assert "is written by Fairlead alone, not by alice" in refusal
            assert "is written by Fairlead alone" in kubectl.refusal("patch", kind, name, *forge), "the administrator"

    @pytest.mark.requirement("A12")
    def test_each_of_fairleads_own_writes_its_part(self, kubectl: Kubectl) -> None:
        kubectl.create(workflow())
        kubectl.create(RUN | {"spec": {"workflow": "w"}})
        kubectl.create(specimen("Policy") | {"spec": {}})
        forge = ("--subresource=status", "--type=merge", "--dry-run=server", "-p", '{"status": {"conditions": []}}')
        operator, engine = operator_of(kubectl), engine_of(kubectl)
        stranger = in_pod(kubectl, "system:serviceaccount:elsewhere:fairlead-engine", "fairlead-engine-0")
        kinds = ("workflows", "workflowruns", "policies")
        for user in (operator.user, engine.user, stranger.user):
            give(kubectl, user, *((GROUP, f"{kind}/status", ["get", "patch"], None) for kind in kinds))
        operator("patch", "policy", "triage", *forge)
        operator("patch", "workflow", "w", *forge)
        engine("patch", "workflow", "w", *forge)
        engine("patch", "workflowrun", "r", *forge)
        engine("patch", "policy", "triage", *forge)
        # Two policies refuse each of these; whose words come is chance.
        assert "denied request" in operator.refusal("patch", "workflowrun", "r", *forge)
        assert "denied request" in stranger.refusal("patch", "workflow", "w", *forge)


class TestPods:
    """What is named like Fairlead's pods is Fairlead's."""

    @pytest.mark.requirement("A54")
    @pytest.mark.parametrize("pod", ["fairlead-engine-0", "fairlead-tool-clock-abc", "fairlead-operator-abc"])
    @pytest.mark.parametrize("way", ["exec?command=sh", "attach", "portforward", "proxy/"])
    def test_nobody_gets_into_them(self, kubectl: Kubectl, pod: str, way: str) -> None:
        path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{pod}/{way}"
        refusal = kubectl.refusal("create", "--raw", path, "--filename=-", stdin="{}")
        assert "it belongs to Fairlead" in refusal

    @pytest.mark.parametrize(
        ("metadata", "spec", "word"),
        [
            ({"name": "fairlead-engine-7"}, {}, "made by Fairlead's workloads only"),
            ({"name": "x", "labels": {"fairlead.dev/component": "engine"}}, {}, "made by Fairlead's workloads only"),
            ({"name": "x", "labels": {"fairlead.dev/calls": "Allowed"}}, {}, "made by Fairlead's workloads only"),
            ({"name": "x"}, {"serviceAccountName": "fairlead-engine"}, "no pod but the engine runs as fairlead-engine"),
            ({"name": "x"}, {"serviceAccountName": "fairlead-viewer"}, "no pod but the engine runs as fairlead-viewer"),
        ],
    )
    def test_nobody_makes_one(
        self, kubectl: Kubectl, metadata: dict[str, Any], spec: dict[str, Any], word: str
    ) -> None:
        for account in ("fairlead-engine", "fairlead-viewer"):
            kubectl("create", "serviceaccount", account)
        assert word in tries(kubectl, pod("x", **spec) | {"metadata": metadata})
        assert tries(kubectl, pod("x", {"app": "x"})) == ""

    def test_a_running_pod_does_not_become_one_by_a_label(self, kubectl: Kubectl) -> None:
        kubectl("run", "x", "--image=x")
        for label in ("fairlead.dev/component=engine", "fairlead.dev/name=tickets", "fairlead.dev/calls=Allowed"):
            assert "denied request" in kubectl.refusal("label", "pod", "x", label)
        kubectl("label", "pod", "x", "app=x")
        kubectl("set", "image", "pod/x", "x=y")

    @pytest.mark.requirement("A54")
    def test_one_stays_what_its_workload_made_it(self, kubectl: Kubectl) -> None:
        """Without its labels no NetworkPolicy selects it, with others a Service does; an image is code."""
        controller = someone(kubectl, f"{KUBE}:replicaset-controller")
        controller.create(pod("fairlead-tool-tickets-x", TOOL_LABELS))
        give(kubectl, controller.user, ("", "pods", ["get"], None))  # kubectl reads before it patches
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "edit")
        for who in (alice, kubectl):
            for change in (
                ("label", "pod", "fairlead-tool-tickets-x", "fairlead.dev/component-"),
                ("label", "--overwrite", "pod", "fairlead-tool-tickets-x", "fairlead.dev/name=other"),
                ("label", "pod", "fairlead-tool-tickets-x", "app=x"),
                ("set", "image", "pod/fairlead-tool-tickets-x", "x=mine"),
            ):
                assert "the labels and the spec of Fairlead's pods stay as they are" in who.refusal(*change)
        alice("annotate", "pod", "fairlead-tool-tickets-x", "note=x")
        finalizer = '{"metadata": {"finalizers": ["example.com/x"]}}'
        controller("patch", "pod", "fairlead-tool-tickets-x", "--type=merge", "--dry-run=server", "-p", finalizer)
        alice("delete", "pod", "fairlead-tool-tickets-x", "--wait=false")

    @pytest.mark.requirement("A10")
    @pytest.mark.parametrize("kind", WORKLOADS)
    def test_nobody_makes_a_workload_that_would_make_one(self, kubectl: Kubectl, kind: str) -> None:
        for name in ("fairlead", "fairlead-engine"):
            assert "written by the operator alone" in tries(kubectl, workload(kind, name))
        assert "written by the operator alone" in tries(kubectl, workload(kind, "innocent", **TOOL_LABELS))
        assert tries(kubectl, workload(kind, "innocent")) == ""
        assert tries(kubectl, workload(kind, "fairleads-rival")) == ""

    def test_no_secret_holds_a_token_of_their_accounts(self, kubectl: Kubectl) -> None:
        """Kubernetes' own `edit` may make and read Secrets."""
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "edit")

        def token(account: str) -> dict[str, Any]:
            metadata = {"name": "token", "annotations": {"kubernetes.io/service-account.name": account}}
            kind = "kubernetes.io/service-account-token"
            return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata}

        for account in ("fairlead-engine", "fairlead-viewer"):
            assert "no Secret holds a token of an account fairlead-*" in tries(alice, token(account))
        operators = token("fairlead-operator") | {
            "metadata": token("fairlead-operator")["metadata"] | {"namespace": SYSTEM}
        }
        assert "no Secret holds a token of an account fairlead-*" in tries(kubectl, operators)
        kubectl("create", "serviceaccount", "mine")
        alice.create(token("mine"))
        until("the cluster puts a token in", lambda: "token" in alice.get("secret", "token").get("data", {}))
        other = "kubernetes.io/service-account.name=fairlead-engine"
        assert "no Secret holds" in alice.refusal("annotate", "--overwrite", "secret", "token", other)
        alice("create", "secret", "generic", "other", "--from-literal=a=b")

    def test_tokens_for_engines_come_from_kubelets(self, kubectl: Kubectl) -> None:
        for account in ("mine", "fairlead-viewer", "fairlead-engine"):
            kubectl("create", "serviceaccount", account)
        audience = f"https://engine.{kubectl.namespace}.fairlead.dev"
        assert "by kubelets only" in kubectl.refusal("create", "token", "mine", f"--audience={audience}")
        assert "by kubelets only" in kubectl.refusal("create", "token", "fairlead-engine")
        kubectl("create", "token", "fairlead-viewer", f"--audience={audience}/view")
        kubectl("create", "token", "mine")
        system = kubectl.within(SYSTEM)
        system("create", "serviceaccount", "fairlead-uninstall")  # there only while the chart is being uninstalled
        try:
            for account in ("fairlead-operator", "fairlead-uninstall"):
                assert "by kubelets only" in system.refusal("create", "token", account)
        finally:
            system("delete", "serviceaccount", "fairlead-uninstall")

    def test_a_server_is_called_past_the_engine_only_with_invoke(self, kubectl: Kubectl, tmp_path: Path) -> None:
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", ("", "services/proxy", ["get"], None), (GROUP, "tools", ["invoke"], "clock"))

        def call(service: str) -> str:
            return alice.refusal("get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/services/{service}/proxy/")

        assert 'needs the verb "invoke" on tools.fairlead.dev/tickets' in call("fairlead-tool-tickets")
        assert 'needs the verb "invoke" on models.fairlead.dev/small' in call("http:fairlead-model-small:8080")
        assert "not found" in call("fairlead-tool-clock:8080"), "allowed, but there is none"


class TestNetwork:
    """What leads to Fairlead's pods, and what locks them in, is the operator's."""

    @pytest.mark.parametrize(
        "selector",
        [
            TOOL_LABELS,
            {"fairlead.dev/component": "model", "app": "x"},
            {"app.kubernetes.io/managed-by": "fairlead"},
            {"pod-template-hash": "5d9f", "app.kubernetes.io/part-of": "fairlead"},
            {"pod-template-hash": "5d9f"},
        ],
    )
    def test_no_service_of_others_leads_to_a_server(self, kubectl: Kubectl, selector: dict[str, str]) -> None:
        refused = "no Service but the operator's leads to Fairlead's pods"
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "edit")
        assert refused in tries(alice, service("x", **selector))
        alice.create(service("x", app="x"))
        change = json.dumps({"spec": {"selector": {"app": None} | selector}})
        assert refused in alice.refusal("patch", "service", "x", "--type=merge", "-p", change)
        more = {"pod-template-hash": "5d9f", "app.kubernetes.io/part-of": "shop"}
        alice("patch", "service", "x", "--type=merge", "-p", json.dumps({"spec": {"selector": more}}))
        assert tries(alice, service("headless") | {"spec": {"clusterIP": "None", "ports": [{"port": 80}]}}) == ""

    def test_no_address_of_a_server_leads_elsewhere(self, kubectl: Kubectl) -> None:
        """Whoever stood behind a Tool's Service would be sent its credential."""
        refused = "of fairlead-* are written by the operator alone"
        operator = operator_of(kubectl)
        label = {"app.kubernetes.io/managed-by": "fairlead"}
        address = service("fairlead-tool-tickets", **TOOL_LABELS)
        operator.create(address | {"metadata": address["metadata"] | {"labels": label}})
        elsewhere = '{"spec": {"selector": {"app": "x"}}}'
        assert refused in kubectl.refusal("patch", "service", "fairlead-tool-tickets", "--type=merge", "-p", elsewhere)
        assert refused in tries(kubectl, service("fairlead-tool-other", app="x"))
        metadata = {"name": "x", "labels": {"kubernetes.io/service-name": "fairlead-tool-tickets"}}
        slices = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
        slices |= {"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]}
        assert refused in tries(kubectl, slices)
        assert tries(kubectl, slices | {"metadata": {"name": "x", "labels": {}}}) == ""
        until("the cluster itself writes them", lambda: kubectl.get("endpointslices")["items"])
        endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "fairlead-tool-other"}}
        assert refused in tries(kubectl, endpoints)

    @pytest.mark.requirement("A58")
    def test_a_network_rule_of_the_operator_is_changed_and_deleted_by_nobody_else(
        self, administrator: Kubectl, namespace: str, kubectl: Kubectl
    ) -> None:
        refused = "networkpolicies of fairlead-* are written by the operator alone"
        made = network_policy("fairlead-tool-tickets")
        made["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "fairlead"}
        operator_of(kubectl).create(made)
        alice = someone(kubectl, "alice")
        bind(kubectl, "alice", "ClusterRole", "edit")
        opened = ("networkpolicy", "fairlead-tool-tickets", "--type=merge", "-p", '{"spec": {"egress": [{}]}}')
        for who in (alice, kubectl):
            assert refused in who.refusal("patch", *opened)
            assert refused in who.refusal("delete", "networkpolicy", "fairlead-tool-tickets")
            every = f"--raw=/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"
            assert refused in who.refusal("delete", every)
            assert refused in tries(who, network_policy("fairlead-mine"))
            assert tries(who, network_policy("mine")) == ""
        collector = someone(kubectl, f"{KUBE}:generic-garbage-collector")
        for who in (in_pod(kubectl, UNINSTALL, "fairlead-uninstall-x"), collector):
            give(kubectl, who.user, ("networking.k8s.io", "networkpolicies", ["get", "delete"], None))
            who("delete", "networkpolicy", "fairlead-tool-tickets", "--dry-run=server")
        assert refused in someone(kubectl, UNINSTALL).refusal("delete", "networkpolicy", "fairlead-tool-tickets")
        administrator("delete", "namespace", namespace, "--timeout=60s")
        administrator("create", "namespace", namespace)


def test_an_ordinary_user_and_the_clusters_own_controllers_are_not_in_the_way(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "innocent", "--image=x")
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deployment/innocent", "--timeout=60s")
    kubectl("delete", "deployment", "innocent", "--cascade=foreground", "--timeout=60s")
