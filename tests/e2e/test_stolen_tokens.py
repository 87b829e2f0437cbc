"""Stolen tokens: what the identities of the operator and of an engine cannot do, tried every way that is worth it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.e2e.identities import OPERATOR, bind, engine_of, give, operator_of, token_of, tries, with_token
from tests.e2e.installation import SYSTEM, Fairlead, until
from tests.e2e.kubectl import Kubectl
from tests.specimens import REMOVED, changed, specimen

from fairlead.api.engine import EngineSpec
from fairlead.api.server import Server
from fairlead.controllers.engine_objects import engine_objects
from fairlead.controllers.policy import plan as plan_policy
from fairlead.controllers.server import plan_server
from fairlead.controllers.settings import EngineImage

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def fairlead(chart: Fairlead) -> Fairlead:
    return chart


@pytest.fixture(scope="module")
def thief(administrator: Kubectl, fairlead: Fairlead) -> Kubectl:
    """Whoever has the token of the operator's pod."""
    pods = administrator.within(SYSTEM).get("pods", "--selector=app.kubernetes.io/name=fairlead-operator")["items"]
    pod = next(pod for pod in pods if "deletionTimestamp" not in pod["metadata"])
    return with_token(administrator, token_of(administrator.within(SYSTEM), pod, "fairlead-operator"))


# What an admission policy of its own would refuse: the run of a stranger has none of it.
NOT_A_STRANGERS = ("spec.parent", "spec.signals", "spec.requestedBy")


class TestStolenEngineToken:
    def test_an_engine_writes_nothing_else_whatever_somebody_bound_to_it(self, kubectl: Kubectl) -> None:
        engine = engine_of(kubectl)
        bind(kubectl, engine.user, "ClusterRole", "cluster-admin")
        for obj in (
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}},
            specimen("Policy"),
            specimen("Workflow"),
            changed(specimen("WorkflowRun"), dict.fromkeys(NOT_A_STRANGERS, REMOVED)),
        ):
            assert "fairlead-engine never does CREATE" in tries(engine, obj)

    def test_an_engine_deletes_no_run_that_somebody_named(self, kubectl: Kubectl) -> None:
        engine = engine_of(kubectl)
        bind(kubectl, engine.user, "ClusterRole", "cluster-admin")
        spec = {"workflow": "none"}
        run = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "WorkflowRun", "metadata": {"name": "mine"}, "spec": spec}
        kubectl.create(run)
        assert "deletes no run that somebody named" in engine.refusal("delete", "workflowrun", "mine")

    @pytest.mark.requirement("A14")
    def test_an_engine_says_neither_that_no_clusterpolicy_binds_it_nor_that_nobody_knows(
        self, kubectl: Kubectl
    ) -> None:
        """Where the operator has said nothing no call is made; where it has said `none` they are."""
        engine = engine_of(kubectl)
        give(kubectl, engine.user, ("fairlead.dev", "engines", ["get"], None))
        give(kubectl, engine.user, ("fairlead.dev", "engines/status", ["get", "patch"], None))
        kubectl.create(changed(specimen("Engine"), {"spec": {"storage": {"size": "100Mi"}}}))

        def copies() -> Any:
            return kubectl.get("engine", "default").get("status", {}).get("clusterPolicies")

        until("the operator has said", lambda: copies() is not None)
        words = ("patch", "engine", "default", "--subresource=status", "--type=merge", "-p")
        refused = "an engine does not say which ClusterPolicies bind it"
        assert refused in engine.refusal(*words, '{"status": {"clusterPolicies": null}}')
        assert refused in engine.refusal(*words, '{"status": null}')
        engine(*words, '{"status": {"owner": "fairlead-engine-0"}}')
        assert copies() == []


def refused(thief: Kubectl, obj: Mapping[str, Any], word: str) -> None:
    refusal = tries(thief, obj)
    assert word in refusal, refusal or "it was allowed"


def typed(objects: tuple[Any, ...], kind: str) -> dict[str, Any]:
    """The object of a kind that the operator would apply, whole and without owners."""
    rt, obj = next((rt, obj) for rt, obj in objects if rt.kind == kind)
    metadata = {key: value for key, value in obj["metadata"].items() if key != "ownerReferences"}
    return {"apiVersion": rt.api_version, "kind": rt.kind, **obj, "metadata": metadata}


def placed(kind: str, namespace: str) -> dict[str, Any]:
    obj = specimen(kind)
    name = "default" if kind == "Engine" else obj["metadata"]["name"]
    return obj | {"metadata": {"name": name, "namespace": namespace, "uid": "u"}}


@pytest.fixture(scope="module")
def room(administrator: Kubectl, fairlead: Fairlead) -> Iterator[str]:
    """A namespace for what is only tried."""
    name = "tried-by-a-thief"
    administrator("create", "namespace", name)
    yield name
    administrator("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def engine_image(administrator: Kubectl, fairlead: Fairlead) -> EngineImage:
    (container,) = administrator.within(SYSTEM).get("deployment", "fairlead-operator")["spec"]["template"]["spec"][
        "containers"
    ]
    return EngineImage(
        {variable["name"]: variable.get("value") for variable in container["env"]}["FAIRLEAD_ENGINE_IMAGE"]
    )


@pytest.fixture(scope="module")
def engine(room: str, engine_image: EngineImage) -> tuple[Any, ...]:
    return engine_objects(placed("Engine", room), EngineSpec(), image=engine_image, secrets=["tickets"])


@pytest.fixture(scope="module")
def server(room: str, engine_image: EngineImage) -> tuple[Any, ...]:
    wanted = Server(image="example.com/clock:1")
    return plan_server("tool", placed("Tool", room), wanted, guard=engine_image, deployment=None, pods=[]).apply


@pytest.fixture(scope="module")
def grants(room: str) -> tuple[Any, ...]:
    policy = placed("Policy", room)
    return plan_policy(policy, policies=[policy], accounts={}).apply


POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
FIRST = f"{POD}.initContainers.0"
PRIVILEGES: dict[str, tuple[dict[str, Any], str]] = {
    "host network": ({f"{POD}.hostNetwork": True}, "host namespaces"),
    "host processes": ({f"{POD}.hostPID": True}, "host namespaces"),
    "root": ({f"{POD}.securityContext.runAsNonRoot": False}, "not as root"),
    "pull secrets": ({f"{POD}.imagePullSecrets": [{"name": "x"}]}, "pull secrets"),
    "privileged": (
        {f"{CONTAINER}.securityContext.allowPrivilegeEscalation": True},
        "without any privilege",
    ),
    "a capability": ({f"{CONTAINER}.securityContext.capabilities.add": ["NET_ADMIN"]}, "without any privilege"),
    "another container": ({f"{POD}.containers.1": {"name": "x", "image": "x"}}, "one container"),
    "a host path": ({f"{POD}.volumes.0": {"name": "tmp", "hostPath": {"path": "/"}}}, "mounts Secrets into"),
    "a secret variable": (
        {f"{CONTAINER}.env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]},
        "references in their environment",
    ),
    "secret variables": ({f"{CONTAINER}.envFrom": [{"secretRef": {"name": "a"}}]}, "references in their environment"),
    "a hook": ({f"{CONTAINER}.lifecycle": {"postStart": {"exec": {"command": ["sh"]}}}}, "hooks"),
    "a command in a probe": (
        {f"{CONTAINER}.readinessProbe": {"exec": {"command": ["sh"]}}},
        "commands in probes",
    ),
    "another name": ({"metadata.name": "innocent"}, "no workload but"),
}
ENGINE_ONLY: dict[str, tuple[dict[str, Any], str]] = {
    "an init container": ({f"{POD}.initContainers": [{"name": "x", "image": "x"}]}, "one container"),
    "another image": ({f"{CONTAINER}.image": "evil:1"}, "engines run"),
    "another program": ({f"{CONTAINER}.command": ["sh", "-c", "cat /var/run/fairlead/secrets/*/*"]}, "engines run"),
    "arguments": ({f"{CONTAINER}.args": ["--help"]}, "engines run"),
    "another account": ({f"{POD}.serviceAccountName": "admin-sa"}, "the account fairlead-engine"),
    "a variable": ({f"{CONTAINER}.env": [{"name": "PYTHONPATH", "value": "/tmp"}]}, "no other environment"),
    "a mount over our code": (
        {f"{CONTAINER}.volumeMounts.1.mountPath": "/opt/fairlead/site"},
        "no other environment and no other mounts",
    ),
    "code from a ConfigMap": ({f"{POD}.volumes.0": {"name": "tmp", "configMap": {"name": "x"}}}, "mounts Secrets into"),
    "a crowd of replicas": ({"spec.replicas": 6}, "at most five replicas"),
}
SERVER_ONLY: dict[str, tuple[dict[str, Any], str]] = {
    "a second init container": ({f"{POD}.initContainers.1": {"name": "x", "image": "x"}}, "one before it"),
    "another image before it": ({f"{FIRST}.image": "evil:1"}, "before a server runs"),
    "another program before it": ({f"{FIRST}.command": ["sh"]}, "before a server runs"),
    "arguments before it": ({f"{FIRST}.args": ["x"]}, "before a server runs"),
    "a variable before it": ({f"{FIRST}.env": [{"name": "PYTHONPATH", "value": "/tmp"}]}, "before a server runs"),
    "a mount before it": (
        {f"{FIRST}.volumeMounts": [{"name": "tmp", "mountPath": "/opt/fairlead/site"}]},
        "before a server runs",
    ),
    "a sidecar before it": ({f"{FIRST}.restartPolicy": "Always"}, "before a server runs"),
    "privilege before it": ({f"{FIRST}.securityContext.allowPrivilegeEscalation": True}, "before a server runs"),
    "a secret": ({f"{POD}.volumes.0": {"name": "tmp", "secret": {"secretName": "x"}}}, "mounts Secrets into"),
    "a token": ({f"{POD}.automountServiceAccountToken": True}, "no token to servers"),
    "a projected token": (
        {f"{POD}.volumes.0": {"name": "tmp", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}},
        "mounts Secrets into",
    ),
    "the engine's account": ({f"{POD}.serviceAccountName": "fairlead-engine"}, "no token to servers"),
}


@pytest.mark.requirement("A17", "A62")
class TestStolenOperatorToken:
    def test_what_the_operator_really_does_is_allowed(
        self, thief: Kubectl, engine: tuple[Any, ...], server: tuple[Any, ...], grants: tuple[Any, ...]
    ) -> None:
        for objects in (engine, server, grants):
            for kind in sorted({rt.kind for rt, _ in objects}):
                refusal = tries(thief, typed(objects, kind))
                # On trial no Role is made, so a binding to it is not checked further.
                assert refusal == "" or (kind == "RoleBinding" and "NotFound" in refusal)

    @pytest.mark.parametrize("what", [*PRIVILEGES, *ENGINE_ONLY])
    def test_no_engine_but_ours(self, thief: Kubectl, engine: tuple[Any, ...], what: str) -> None:
        changes, word = (PRIVILEGES | ENGINE_ONLY)[what]
        refused(thief, changed(typed(engine, "StatefulSet"), changes), word)

    @pytest.mark.parametrize("what", [*PRIVILEGES, *SERVER_ONLY])
    def test_no_server_with_anything_worth_stealing(self, thief: Kubectl, server: tuple[Any, ...], what: str) -> None:
        changes, word = (PRIVILEGES | SERVER_ONLY)[what]
        refused(thief, changed(typed(server, "Deployment"), changes), word)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"rules.0.verbs": ["get"]}, "not currently held"),
            ({"rules.0.verbs": ["invoke", "grant"]}, "not currently held"),
            ({"rules.0.verbs": ["*"]}, "not currently held"),
            ({"rules.0.resources": ["secrets"], "rules.0.apiGroups": [""]}, "not currently held"),
            ({"rules.0.resources": ["policies"], "rules.0.verbs": ["list"]}, "grants nothing but the verb invoke"),
            ({"rules.0.resourceNames": []}, "grants nothing but the verb invoke"),
            ({"metadata.name": "innocent"}, "no Role but fairlead-grant-*"),
        ],
    )
    def test_no_role_but_grants(
        self, thief: Kubectl, grants: tuple[Any, ...], changes: dict[str, Any], word: str
    ) -> None:
        refused(thief, changed(typed(grants, "Role"), changes), word)

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"roleRef.kind": "ClusterRole", "roleRef.name": "admin"}, "not currently held"),
            ({"roleRef.kind": "ClusterRole", "roleRef.name": "fairlead-engine"}, "binds no role but"),
            ({"metadata.name": "innocent"}, "binds no role but"),
            (
                {"subjects.0": {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "mallory"}},
                "of the same namespace",
            ),
            ({"subjects.0.namespace": "elsewhere"}, "of the same namespace"),
            ({"subjects.0.name": "default"}, "never to default"),
            ({"subjects.0.name": "fairlead-engine"}, "never to default or fairlead-*"),
        ],
    )
    def test_no_binding_but_of_grants(
        self, administrator: Kubectl, thief: Kubectl, grants: tuple[Any, ...], changes: dict[str, Any], word: str
    ) -> None:
        role = typed(grants, "Role")
        administrator.within(role["metadata"]["namespace"])("apply", "--filename=-", stdin=json.dumps(role))
        refused(thief, changed(typed(grants, "RoleBinding"), changes), word)

    def test_the_engines_role_goes_to_engines_alone(self, thief: Kubectl, engine: tuple[Any, ...]) -> None:
        binding = typed(engine, "RoleBinding")
        refused(thief, changed(binding, {"subjects.0.name": "admin-sa"}), "the engine's role to fairlead-engine")

    @pytest.mark.parametrize("elsewhere", ["kube-system", "kube-public", SYSTEM])
    def test_nothing_where_the_cluster_or_the_operator_live(
        self, thief: Kubectl, engine: tuple[Any, ...], grants: tuple[Any, ...], server: tuple[Any, ...], elsewhere: str
    ) -> None:
        for objects, kind in (
            (engine, "StatefulSet"),
            (engine, "ServiceAccount"),
            (grants, "Role"),
            (server, "Service"),
        ):
            obj = changed(typed(objects, kind), {"metadata.namespace": elsewhere})
            refused(thief, obj, f"builds nothing in the namespace {elsewhere}")

    @pytest.mark.parametrize(
        ("kind", "changes", "word"),
        [
            ("Service", {"spec.type": "LoadBalancer"}, "inside the cluster"),
            ("Service", {"spec.externalIPs": ["192.0.2.1"]}, "inside the cluster"),
            ("Service", {"spec.selector": {"app": "database"}}, "inside the cluster"),
            ("NetworkPolicy", {"spec.podSelector": {}}, "for its own pods"),
            ("NetworkPolicy", {"metadata.name": "allow-all"}, "for its own pods"),
        ],
    )
    def test_no_address_and_no_network_rule_for_others(
        self, thief: Kubectl, server: tuple[Any, ...], kind: str, changes: dict[str, Any], word: str
    ) -> None:
        refused(thief, changed(typed(server, kind), changes), word)

    def test_no_configuration_but_the_empty_authority(self, thief: Kubectl, namespace: str) -> None:
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": namespace}}
        config_map["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "fairlead"}  # type: ignore[index]
        refused(thief, config_map, "no ConfigMap but an empty fairlead-engine-ca")
        authority = {"metadata.namespace": SYSTEM, "metadata.name": "fairlead-engine-ca"}
        refused(thief, changed(config_map, authority), "builds nothing")

    def test_no_account_of_others(self, kubectl: Kubectl, thief: Kubectl, namespace: str) -> None:
        kubectl("create", "serviceaccount", "deployer")
        operator = operator_of(kubectl)
        give(kubectl, OPERATOR, ("", "serviceaccounts", ["get"], None))  # kubectl reads before it patches
        label = '{"metadata": {"labels": {"app.kubernetes.io/managed-by": "fairlead"}}}'
        for name in ("deployer", "default"):
            words = ("patch", "serviceaccount", name, "--type=merge", "--dry-run=server", "-p", label)
            assert "only what carries its label" in operator.refusal(*words)
        assert "deletes only" in operator.refusal("delete", "serviceaccount", "deployer", "--dry-run=server")

    def test_no_secret_no_pod_no_way_in_and_no_engine_of_somebody(
        self, kubectl: Kubectl, thief: Kubectl, namespace: str
    ) -> None:
        mine = thief.within(namespace)
        kubectl.create(specimen("Engine"))
        for words in (
            ("get", "secrets"),
            ("run", "x", "--image=x", "--dry-run=server"),
            ("create", "token", "default"),
            ("create", "--raw", f"/api/v1/namespaces/{namespace}/pods/x/exec?command=ls", "--filename=-"),
            ("patch", "engine", "default", "--type=merge", "-p", '{"spec": {"security": {}}}'),
            ("delete", "engine", "default"),
            ("delete", "validatingadmissionpolicy", "fairlead-operator-scope"),
            ("delete", "role", "x", "--dry-run=server"),
        ):
            assert "orbidden" in mine.refusal(*words, stdin="{}") or "NotFound" in mine.refusal(*words, stdin="{}")
