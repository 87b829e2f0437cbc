"""What the API server refuses on Fairlead's behalf, each with the words that tell why. Nothing here needs a pod."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.identities import OPERATOR, bind, engine_of, give, someone, tries
from tests.e2e.installation import Fairlead
from tests.e2e.kubectl import Kubectl
from tests.specimens import specimen

pytestmark = pytest.mark.cluster

GROUP = "fairlead.dev"
WRITE = ("get", "list", "create", "update", "patch", "delete")
PLAIN = {"steps": [{"name": "a", "transform": {"value": 1}}]}
RUN = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkflowRun", "metadata": {"name": "r"}}


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


def workflow(account: str | None = None, name: str = "w") -> dict[str, Any]:
    spec = PLAIN | ({"serviceAccountName": account} if account else {})
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name}, "spec": spec}


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
        operator, engine = someone(kubectl, OPERATOR), engine_of(kubectl)
        stranger = someone(kubectl, "system:serviceaccount:elsewhere:fairlead-engine")
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
            ({"name": "x"}, {"serviceAccountName": "fairlead-engine"}, "no pod but the engine runs as fairlead-engine"),
            ({"name": "x"}, {"serviceAccountName": "fairlead-viewer"}, "no pod but the engine runs as fairlead-viewer"),
        ],
    )
    def test_nobody_makes_one(
        self, kubectl: Kubectl, metadata: dict[str, Any], spec: dict[str, Any], word: str
    ) -> None:
        for account in ("fairlead-engine", "fairlead-viewer"):
            kubectl("create", "serviceaccount", account)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
        assert word in tries(kubectl, pod | {"spec": {"containers": [{"name": "x", "image": "x"}], **spec}})
        plain = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
        assert tries(kubectl, plain | {"spec": {"containers": [{"name": "x", "image": "x"}]}}) == ""

    def test_a_running_pod_does_not_become_one_by_a_label(self, kubectl: Kubectl) -> None:
        kubectl("run", "x", "--image=x")
        assert "is for Fairlead's pods" in kubectl.refusal("label", "pod", "x", "fairlead.dev/component=engine")

    @pytest.mark.parametrize("kind", ["deployment", "job", "cronjob"])
    def test_nobody_makes_a_workload_that_would_make_one(self, kubectl: Kubectl, kind: str) -> None:
        schedule = ("--schedule=* * * * *",) if kind == "cronjob" else ()
        words = ("create", kind, "fairlead-engine", "--image=x", "--dry-run=server", *schedule)
        assert "written by the operator alone" in kubectl.refusal(*words)
        kubectl("create", kind, "innocent", "--image=x", "--dry-run=server", *schedule)

    def test_tokens_for_engines_come_from_kubelets(self, kubectl: Kubectl) -> None:
        for account in ("mine", "fairlead-viewer", "fairlead-engine"):
            kubectl("create", "serviceaccount", account)
        audience = f"https://engine.{kubectl.namespace}.fairlead.dev"
        assert "by kubelets only" in kubectl.refusal("create", "token", "mine", f"--audience={audience}")
        assert "by kubelets only" in kubectl.refusal("create", "token", "fairlead-engine")
        kubectl("create", "token", "fairlead-viewer", f"--audience={audience}/view")
        kubectl("create", "token", "mine")

    def test_a_server_is_called_past_the_engine_only_with_invoke(self, kubectl: Kubectl, tmp_path: Path) -> None:
        alice = someone(kubectl, "alice")
        give(kubectl, "alice", ("", "services/proxy", ["get"], None), (GROUP, "tools", ["invoke"], "clock"))

        def call(service: str) -> str:
            return alice.refusal("get", "--raw", f"/api/v1/namespaces/{kubectl.namespace}/services/{service}/proxy/")

        assert 'needs the verb "invoke" on tools.fairlead.dev/tickets' in call("fairlead-tool-tickets")
        assert 'needs the verb "invoke" on models.fairlead.dev/small' in call("http:fairlead-model-small:8080")
        assert "not found" in call("fairlead-tool-clock:8080"), "allowed, but there is none"


def test_an_ordinary_user_and_the_clusters_own_controllers_are_not_in_the_way(kubectl: Kubectl) -> None:
    kubectl("create", "deployment", "innocent", "--image=x")
    kubectl("wait", "--for=jsonpath={.status.replicas}=1", "deployment/innocent", "--timeout=60s")
    kubectl("delete", "deployment", "innocent", "--cascade=foreground", "--timeout=60s")
