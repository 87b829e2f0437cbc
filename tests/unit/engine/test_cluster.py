"""The namespace as the cluster has it: resources, mounted secrets, and statuses that reach the right object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.api.canonical import MAX_SPEC_DEPTH
from fairlead.engine.cluster import SECRET_SECONDS, ClusterResources, ClusterSink
from fairlead.engine.policies import policy_status
from fairlead.errors import Conflict, CredentialPending, NotFound
from fairlead.kube.types import WORKFLOW_RUNS, ResourceType
from fairlead.policy.rules import is_stand_in


class FakeKube:
    """One WorkflowRun, with the server's way of treating resourceVersions: a stale one is a Conflict."""

    def __init__(self) -> None:
        self.uid, self.version = "u1", 1
        self.applied: list[dict[str, Any]] = []
        self.reads = 0
        self.disturb = 0

    async def get(self, rt: ResourceType, name: str, namespace: str | None = None) -> dict[str, Any]:
        assert rt is WORKFLOW_RUNS
        self.reads += 1
        return {"metadata": {"name": name, "uid": self.uid, "resourceVersion": str(self.version)}}

    async def apply_status(
        self, rt: ResourceType, obj: dict[str, Any], *, manager: str, urgent: bool
    ) -> dict[str, Any]:
        if self.disturb:
            self.disturb -= 1
            self.version += 1
        if obj["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "stale")
        assert (manager, urgent) == ("fairlead-engine", True)
        self.version += 1
        self.applied.append(obj["status"])
        return {"metadata": {"resourceVersion": str(self.version)}}


@pytest.fixture
def kube() -> FakeKube:
    return FakeKube()


@pytest.fixture
def sink(kube: FakeKube) -> ClusterSink:
    return ClusterSink(kube, "team")  # type: ignore[arg-type]  # the two methods that it uses


async def test_a_second_status_needs_no_second_read(kube: FakeKube, sink: ClusterSink) -> None:
    await sink.write("WorkflowRun", "r", "u1", {"n": 1})
    await sink.write("WorkflowRun", "r", "u1", {"n": 2})
    assert kube.applied == [{"n": 1}, {"n": 2}]
    assert kube.reads == 1


async def test_an_object_that_was_met_needs_no_read(kube: FakeKube, sink: ClusterSink) -> None:
    sink.seen({"uid": "u1", "resourceVersion": "1"})
    await sink.write("WorkflowRun", "r", "u1", {"n": 1})
    sink.seen({"uid": "u1", "resourceVersion": "1"})  # late news
    await sink.write("WorkflowRun", "r", "u1", {"n": 2})
    assert (kube.applied, kube.reads) == ([{"n": 1}, {"n": 2}], 0)


async def test_a_status_never_reaches_another_object_of_the_same_name(kube: FakeKube, sink: ClusterSink) -> None:
    await sink.write("WorkflowRun", "r", "u1", {"n": 1})
    kube.uid, kube.version = "u2", 50
    with pytest.raises(NotFound):
        await sink.write("WorkflowRun", "r", "u1", {"n": 2})
    assert kube.applied == [{"n": 1}]


@pytest.mark.requirement("F18")
async def test_a_conflict_is_answered_by_a_fresh_read(kube: FakeKube, sink: ClusterSink) -> None:
    await sink.write("WorkflowRun", "r", "u1", {"n": 1})
    kube.disturb = 1
    await sink.write("WorkflowRun", "r", "u1", {"n": 2})
    assert kube.applied == [{"n": 1}, {"n": 2}]
    kube.disturb = 2
    with pytest.raises(Conflict):
        await sink.write("WorkflowRun", "r", "u1", {"n": 3})


class Cluster:
    def __init__(self, secrets: Path) -> None:
        self.now = 0.0
        self.changes: list[tuple[str, str]] = []
        self.resources = ClusterResources(
            None,  # type: ignore[arg-type]  # nothing is asked: the test tells what changed
            "team",
            on_change=lambda kind, name: self.changes.append((kind, name)),
            on_run=lambda old, new: None,
            secrets=secrets,
            clock=lambda: self.now,
        )

    def tell(self, kind: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        (informer,) = [one for one in self.resources._informers if one._rt.kind == kind]
        informer._on_change(old, new)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def tool(name: str = "desk", **mcp: Any) -> dict[str, Any]:
    spec = {"mcp": mcp or {"url": "https://desk.example/mcp"}, "functions": [{"name": "read"}]}
    return {"metadata": {"name": name, "namespace": "team"}, "spec": spec}


def policy(**grants: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"grants": {"serviceAccounts": ["clerk"], **grants}}}


def test_objects_come_change_and_go(cluster: Cluster) -> None:
    cluster.tell("Tool", None, tool())
    assert cluster.resources.tools["desk"].spec.mcp.url == "https://desk.example/mcp"
    cluster.tell("Tool", tool(), None)
    assert cluster.resources.tools == {}
    assert cluster.changes == [("Tool", "desk"), ("Tool", "desk")]


def test_a_tool_that_is_not_understood_is_not_callable(cluster: Cluster) -> None:
    cluster.tell("Tool", None, tool())
    cluster.tell("Tool", tool(), tool(futureTransport={}))
    assert cluster.resources.tools == {}


@pytest.mark.requirement("F36")
def test_of_a_policy_that_is_not_understood_the_last_good_one_is_kept(cluster: Cluster) -> None:
    cluster.tell("Policy", None, policy(models=["small"]))
    cluster.tell("Policy", policy(models=["small"]), policy(futureGrant={}))
    grants = cluster.resources.policies["p"].spec.grants
    assert grants is not None and grants.models == ["small"]
    cluster.tell("Policy", policy(futureGrant={}), None)
    assert cluster.resources.policies == {}


def rules(mode: str = "Enforce", **future: Any) -> dict[str, Any]:
    bounds = {"calls": [{"name": "no", "when": "call.tool == 'desk'"}], **future}
    return {"metadata": {"name": "p"}, "spec": {"mode": mode, "rules": bounds}}


def test_rules_that_are_not_understood_deny_everything_until_they_are_or_go(cluster: Cluster) -> None:
    cluster.tell("Policy", None, rules(futureRule=[]))
    bounds = cluster.resources.policies["p"].spec.rules
    assert bounds is not None and bounds.calls[0].when == "true"
    cluster.tell("Policy", rules(futureRule=[]), rules())
    bounds = cluster.resources.policies["p"].spec.rules
    assert bounds is not None and bounds.calls[0].name == "no"
    cluster.tell("Policy", rules(), rules(futureRule=[]))
    assert cluster.resources.policies["p"].spec.rules == bounds, "the last good ones"
    cluster.tell("Policy", rules(futureRule=[]), None)
    assert cluster.resources.policies == {}


@pytest.mark.requirement("F36")
@pytest.mark.parametrize("last", [policy(), rules("Audit")], ids=["grants alone", "in Audit mode"])
def test_rules_to_enforce_that_are_not_understood_deny_where_none_were_enforced(
    cluster: Cluster, last: dict[str, Any]
) -> None:
    unread = {"metadata": {"name": "p", "generation": 2}, "spec": {**policy()["spec"], **rules(futureRule=[])["spec"]}}
    cluster.tell("Policy", None, last)
    cluster.tell("Policy", last, unread)
    held = cluster.resources.policies["p"]
    assert is_stand_in(held) and held.spec.mode is None and held.metadata.generation == 2
    assert (held.spec.grants is not None) == ("grants" in last["spec"]), "what was granted stays"
    (condition,) = policy_status(held, {}, spent={}, previous={}, now="2026-01-01T00:00:00Z")["conditions"]
    assert (condition["status"], condition["reason"], condition["observedGeneration"]) == ("False", "NotUnderstood", 2)
    cluster.tell("Policy", unread, last | {"spec": last["spec"] | {"futureField": 1}})
    assert cluster.resources.policies["p"].spec.model_dump(by_alias=True, exclude_unset=True) == last["spec"]


@pytest.mark.parametrize("unread", [rules("Audit", futureRule=[]), policy(futureGrant={})])
def test_what_would_deny_nothing_has_no_stand_in(cluster: Cluster, unread: dict[str, Any]) -> None:
    cluster.tell("Policy", None, unread)
    assert cluster.resources.policies == {}


def test_a_server_that_the_operator_runs_is_at_its_service(cluster: Cluster) -> None:
    cluster.tell("Tool", None, tool(server={"image": "x@sha256:1", "port": 9000}))
    model = {"api": "OpenAIChat", "model": "m", "image": "x"}
    cluster.tell("Model", None, {"metadata": {"name": "small"}, "spec": {"server": model}})
    assert cluster.resources.address("Tool", "desk") == "http://fairlead-tool-desk.team.svc:9000/mcp"
    assert cluster.resources.address("Model", "small") == "http://fairlead-model-small.team.svc:8080/v1"
    assert cluster.resources.own("Tool", "desk") and cluster.resources.own("Model", "small")
    cluster.tell("Tool", None, tool())
    assert not cluster.resources.own("Tool", "desk")


def test_only_the_engine_called_default_counts(cluster: Cluster) -> None:
    security = {"security": {"allowedPrivateHosts": ["10.0.0.1:80"]}}
    cluster.tell("Engine", None, {"metadata": {"name": "other"}, "spec": security})
    assert cluster.resources.engine.security is None
    cluster.tell("Engine", None, {"metadata": {"name": "default"}, "spec": security})
    assert cluster.resources.engine.security is not None


def test_a_secret_is_pending_until_it_is_mounted_and_missing_without_its_key(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(CredentialPending):
        cluster.resources.credential("desk", "token")
    (tmp_path / "desk").mkdir()
    assert cluster.resources.credential("desk", "token") is None


@pytest.mark.requirement("F39")
def test_a_rotated_secret_is_used_without_a_restart(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "token").write_text("old")
    assert cluster.resources.credential("desk", "token") == "old"
    (tmp_path / "desk" / "token").write_text("new")
    cluster.now += SECRET_SECONDS
    assert cluster.resources.credential("desk", "token") == "new"


def engine(*copies: dict[str, Any], known: bool = True) -> dict[str, Any]:
    status = {"clusterPolicies": list(copies)} if known else {}
    return {"metadata": {"name": "default", "namespace": "team", "uid": "e1"}, "spec": {}, "status": status}


def copy_of(name: str = "base", **rules: Any) -> dict[str, Any]:
    return {"name": name, "uid": "u", "generation": 1, "spec": {"rules": rules or {"pins": "Required"}}}


@pytest.mark.requirement("A14")
def test_cluster_policies_are_read_from_the_engines_status(cluster: Cluster) -> None:
    assert not cluster.resources.policies_known
    cluster.tell("Engine", None, engine(known=False))
    assert not cluster.resources.policies_known, "the operator has not said"
    cluster.tell("Engine", None, engine(copy_of()))
    assert cluster.resources.policies_known
    assert list(cluster.resources.policies) == ["ClusterPolicy/base"]
    assert ("Policy", "ClusterPolicy/base") in cluster.changes
    cluster.changes.clear()
    cluster.tell("Engine", None, engine(copy_of()))
    assert cluster.changes == [("Engine", "default")], "nothing changed"
    cluster.tell("Engine", None, engine())
    assert not cluster.resources.policies


@pytest.mark.requirement("A14")
def test_who_deletes_the_engine_does_not_escape(cluster: Cluster) -> None:
    cluster.tell("Engine", None, engine(copy_of()))
    cluster.tell("Engine", engine(copy_of()), None)
    cluster.tell("Engine", None, engine(known=False))
    assert list(cluster.resources.policies) == ["ClusterPolicy/base"]


def test_a_copy_that_this_version_does_not_understand_binds_as_a_denial(cluster: Cluster) -> None:
    cluster.tell("Engine", None, engine(copy_of(later=1)))
    (policy,) = cluster.resources.policies.values()
    assert policy.spec.rules is not None and policy.spec.rules.calls[0].name == "unreadable"


@pytest.mark.requirement("A34")
def test_what_is_nested_too_deep_is_not_understood(cluster: Cluster) -> None:
    value: Any = 1
    for _ in range(MAX_SPEC_DEPTH):
        value = [value]
    spec = {"steps": [{"name": "a", "transform": {"value": value}}]}
    cluster.tell("Workflow", None, {"metadata": {"name": "deep", "namespace": "team", "uid": "u"}, "spec": spec})
    assert cluster.resources.workflows == {} and cluster.changes == [("Workflow", "deep")]
