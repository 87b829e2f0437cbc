from __future__ import annotations

from typing import Any, cast

import pytest
from tests.unit.controllers.declared import NAMESPACE, FakeCluster, Object, account, available, declared

from fairlead.controllers.handlers import enqueue_affected
from fairlead.controllers.observed import Observed
from fairlead.controllers.queue import Key, WorkQueue
from fairlead.controllers.reconcile import Reconciler
from fairlead.controllers.settings import EngineImage, Settings
from fairlead.errors import Conflict, KubeError, Unreachable
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.types import (
    DEPLOYMENTS,
    ENGINES,
    MODELS,
    NETWORK_POLICIES,
    POLICIES,
    ROLE_BINDINGS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    TOOLS,
    WORKFLOWS,
    ResourceType,
)

ENGINE = Key("engines", NAMESPACE, "default")


class Events:
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, bool]] = []

    def emit(self, obj: Object, *, reason: str, message: str, warning: bool = False) -> None:
        self.said.append((obj["kind"], reason, warning))


class Operator:
    """The reconciler on a cluster in memory, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.cluster = FakeCluster()
        self.observed = Observed()
        self.events = Events()
        self.queue = WorkQueue(clock=lambda: self.now, jitter=lambda: 0.0)
        enqueue_affected(self.observed, self.queue)
        self.reconciler = Reconciler(
            cast(Kube, self.cluster),
            self.observed,
            Settings("fairlead-system", "me", EngineImage("image"), {}),
            cast(EventRecorder, self.events),
            clock=lambda: self.now,
        )

    def declare(self, rt: ResourceType, obj: Object) -> Object:
        """Create an object, as a person does, and see it."""
        self.cluster.has(rt, obj)
        self.observed.put(rt, obj)
        return obj

    def see(self, rt: ResourceType, obj: Object) -> None:
        """Hear that a controller of the cluster wrote an object's status."""
        version = str(int(obj["metadata"]["resourceVersion"]) + 1)
        self.declare(rt, {**obj, "metadata": {**obj["metadata"], "resourceVersion": version}})

    async def settle(self) -> list[Key]:
        """Work off what is due now; return the keys in order."""
        worked = []
        while (key := self.queue.take()) is not None:
            worked.append(key)
            assert len(worked) < 100, "it never settles"
            again = await self.reconciler.reconcile(key)
            self.queue.done(key)
            if again is not None:
                self.queue.add(key, delay_seconds=again)
        return worked

    def condition(self, rt: ResourceType, name: str, type_: str = "Ready") -> Object:
        found = self.cluster.find(rt, name)
        assert found is not None
        return next((c for c in found.get("status", {}).get("conditions", []) if c["type"] == type_), {})


@pytest.fixture
def operator() -> Operator:
    return Operator()


async def started(operator: Operator, rt: ResourceType, name: str) -> None:
    """Let a workload become available."""
    workload = operator.cluster.find(rt, name)
    assert workload is not None
    operator.see(rt, available(workload))
    await operator.settle()


async def test_the_first_object_of_a_namespace_brings_an_engine_and_becomes_ready_with_it(operator: Operator) -> None:
    spec = {"steps": [{"name": "a", "transform": {"value": 1}}]}
    operator.declare(WORKFLOWS, declared("Workflow", changes={"spec": spec}))
    await operator.settle()
    assert operator.cluster.find(ENGINES, "default") is not None
    assert operator.condition(WORKFLOWS, "triage")["reason"] == "EngineNotReady"
    await started(operator, STATEFUL_SETS, "fairlead-engine")
    assert operator.condition(ENGINES, "default")["status"] == "True"
    assert operator.condition(WORKFLOWS, "triage")["status"] == "True"


async def test_a_second_look_changes_nothing(operator: Operator) -> None:
    operator.declare(WORKFLOWS, declared("Workflow"))
    operator.declare(MODELS, declared("Model"))
    operator.declare(TOOLS, declared("Tool"))
    operator.declare(POLICIES, declared("Policy"))
    await operator.settle()
    await started(operator, STATEFUL_SETS, "fairlead-engine")
    await started(operator, DEPLOYMENTS, "fairlead-model-small")
    operator.cluster.changes.clear()
    for kind, name in (("workflows", "triage"), ("models", "small"), ("tools", "tickets"), ("policies", "triage")):
        operator.queue.add(Key(kind, NAMESPACE, name))
    operator.queue.add(ENGINE)
    await operator.settle()
    assert operator.cluster.changes == []


async def test_a_status_is_not_written_about_a_child_that_has_just_changed(operator: Operator) -> None:
    operator.declare(MODELS, declared("Model"))
    await operator.settle()
    await started(operator, DEPLOYMENTS, "fairlead-model-small")
    assert operator.condition(MODELS, "small")["status"] == "True"
    edited = declared("Model", changes={"spec.server.port": 9999})
    edited["metadata"] |= {"generation": 2, "resourceVersion": "5000"}
    operator.declare(MODELS, {**edited, "status": operator.cluster.find(MODELS, "small")["status"]})  # type: ignore[index]
    operator.cluster.changes.clear()
    await operator.settle()
    words = [condition["status"] for condition in [operator.condition(MODELS, "small")]]
    assert words == ["False"], "the new server does not answer yet"


async def test_an_engine_restarts_once_for_several_new_secrets(operator: Operator) -> None:
    operator.declare(TOOLS, declared("Tool", "first"))
    await operator.settle()

    def versions() -> list[str]:
        return [name for verb, kind, name in operator.cluster.changes if kind == "StatefulSet"]

    assert len(versions()) == 1
    for number in range(3):
        changes = {"spec.credential.secretRef.name": f"secret-{number}"}
        operator.declare(TOOLS, declared("Tool", f"more-{number}", changes=changes))
        operator.now += 1
        await operator.settle()
    operator.now += 10
    await operator.settle()
    found = operator.cluster.find(STATEFUL_SETS, "fairlead-engine")
    assert found is not None
    mounted = {volume["secret"]["secretName"] for volume in found["spec"]["template"]["spec"]["volumes"][1:]}
    assert mounted == {"tickets", "secret-0", "secret-1", "secret-2"}
    assert len(versions()) == 2


@pytest.mark.parametrize("namespace", ["fairlead-system", "kube-system", "kube-public"])
async def test_nothing_is_built_beside_the_operator_or_the_clusters_own_parts(
    operator: Operator, namespace: str
) -> None:
    operator.declare(TOOLS, declared("Tool", namespace=namespace))
    await operator.settle()
    assert operator.cluster.changes == [("status", "Tool", "tickets")]


async def test_an_object_that_is_being_deleted_is_left_alone(operator: Operator) -> None:
    tool = declared("Tool")
    tool["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    operator.declare(TOOLS, tool)
    operator.queue.add(Key("tools", NAMESPACE, "tickets"))
    assert await operator.reconciler.reconcile(Key("tools", NAMESPACE, "tickets")) is None
    assert operator.cluster.changes == []


async def test_what_the_server_refuses_is_said_in_the_status(operator: Operator) -> None:
    operator.declare(MODELS, declared("Model"))
    operator.cluster.refuse["Deployment"] = KubeError(403, "exceeded quota")
    with pytest.raises(KubeError):
        await operator.reconciler.reconcile(Key("models", NAMESPACE, "small"))
    condition = operator.condition(MODELS, "small")
    assert (condition["status"], condition["reason"], condition["message"]) == (
        "False",
        "ReconcileFailed",
        "exceeded quota",
    )


@pytest.mark.parametrize("error", [Unreachable(503, "busy"), Conflict(409, "changed")])
async def test_what_may_work_a_moment_later_is_not_a_status(operator: Operator, error: KubeError) -> None:
    operator.declare(MODELS, declared("Model"))
    operator.cluster.refuse["Deployment"] = error
    with pytest.raises(type(error)):
        await operator.reconciler.reconcile(Key("models", NAMESPACE, "small"))
    assert operator.condition(MODELS, "small") == {}


@pytest.mark.requirement("A55")
async def test_a_conflict_takes_away_what_was_bound_before(operator: Operator) -> None:
    operator.declare(POLICIES, declared("Policy"))
    await operator.settle()
    assert operator.cluster.find(ROLE_BINDINGS, "fairlead-grant-triage") is not None
    operator.cluster.has(SERVICE_ACCOUNTS, account("deployer"))
    edited = declared("Policy", changes={"spec.grants.serviceAccounts": ["triage", "deployer"]})
    edited["metadata"] |= {"generation": 2, "resourceVersion": "5000"}
    operator.declare(POLICIES, edited)
    await operator.settle()
    assert operator.cluster.find(ROLE_BINDINGS, "fairlead-grant-triage") is None
    assert operator.condition(POLICIES, "triage")["reason"] == "AccountConflict"
    assert ("Policy", "AccountConflict", True) in operator.events.said


async def test_events_tell_transitions_and_not_every_look(operator: Operator) -> None:
    operator.declare(POLICIES, declared("Policy"))
    await operator.settle()
    operator.queue.add(Key("policies", NAMESPACE, "triage"))
    await operator.settle()
    assert [said for said in operator.events.said if said[0] == "Policy"] == [("Policy", "Ready", False)]


async def test_a_deleted_engine_comes_back_while_something_needs_it(operator: Operator) -> None:
    operator.declare(POLICIES, declared("Policy"))
    await operator.settle()
    del operator.cluster.objects["Engine", NAMESPACE, "default"]
    operator.observed.drop(ENGINES, NAMESPACE, "default")
    await operator.settle()
    assert operator.cluster.find(ENGINES, "default") is not None


async def test_an_engine_stays_when_the_last_object_of_its_namespace_goes(operator: Operator) -> None:
    operator.declare(POLICIES, declared("Policy"))
    await operator.settle()
    operator.observed.drop(POLICIES, NAMESPACE, "triage")
    await operator.settle()
    assert operator.cluster.find(ENGINES, "default") is not None


async def test_a_namespace_that_has_only_runs_gets_an_engine(operator: Operator) -> None:
    operator.queue.add(ENGINE)
    await operator.settle()
    assert operator.cluster.find(ENGINES, "default") is None
    operator.reconciler.namespaces_with_runs.add(NAMESPACE)
    operator.queue.add(ENGINE)
    await operator.settle()
    assert operator.cluster.find(ENGINES, "default") is not None


SERVER = {"image": "example.com/tickets@sha256:" + "0" * 64, "port": 8080}


@pytest.mark.requirement("A58")
@pytest.mark.parametrize("name", ["fairlead-step", "fairlead-tool-tickets", "fairlead-step-calls"])
@pytest.mark.parametrize("labels", [True, False], ids=["", "without its labels"])
async def test_what_somebody_adds_to_a_policy_of_ours_is_taken_back(
    operator: Operator, name: str, labels: bool
) -> None:
    operator.declare(TOOLS, declared("Tool", changes={"spec.mcp": {"server": SERVER}, "spec.credential": None}))
    await operator.settle()
    standing = operator.cluster.find(NETWORK_POLICIES, name)
    assert standing is not None
    added = {"ingress" if name == "fairlead-step-calls" else "egress": [{}]}
    metadata = standing["metadata"] if labels else {**standing["metadata"], "labels": {}}
    operator.see(NETWORK_POLICIES, {**standing, "metadata": metadata, "spec": standing["spec"] | added})
    await operator.settle()
    mended = operator.cluster.find(NETWORK_POLICIES, name)
    assert mended is not None
    assert mended["spec"] == standing["spec"]
    assert ("NetworkPolicy", "WidenedByPolicy", True) in operator.events.said
    operator.cluster.changes.clear()
    operator.queue.add(ENGINE)
    operator.queue.add(Key("tools", NAMESPACE, "tickets"))
    await operator.settle()
    assert operator.cluster.changes == [], "once it is as planned, nothing is written"


async def test_a_policy_of_ours_that_cannot_be_mended_is_named_on_the_engine(operator: Operator) -> None:
    operator.declare(TOOLS, declared("Tool", changes={"spec.mcp": {"server": SERVER}, "spec.credential": None}))
    await operator.settle()
    standing = operator.cluster.find(NETWORK_POLICIES, "fairlead-step")
    assert standing is not None
    operator.cluster.refuse["NetworkPolicy"] = KubeError(403, "no")
    operator.see(NETWORK_POLICIES, {**standing, "spec": standing["spec"] | {"egress": [{}]}})
    with pytest.raises(KubeError):
        await operator.settle()
    condition = operator.condition(ENGINES, "default", "NetworkIsolation")
    assert condition["message"] == "NetworkPolicy fairlead-step is not as Fairlead made it"


async def test_a_deployment_that_only_looks_like_ours_is_none(operator: Operator) -> None:
    operator.declare(POLICIES, declared("Policy"))
    head = {"name": "shop", "namespace": NAMESPACE, "uid": "u", "resourceVersion": "1"}
    operator.declare(DEPLOYMENTS, {"metadata": head, "spec": {"selector": {"matchExpressions": []}}})
    await operator.settle()
    assert operator.condition(ENGINES, "default", "NetworkIsolation")["reason"] == "Untried"


@pytest.mark.requirement("A34")
@pytest.mark.parametrize(
    ("rt", "kind"),
    [(WORKFLOWS, "Workflow"), (TOOLS, "Tool"), (MODELS, "Model"), (POLICIES, "Policy"), (ENGINES, "Engine")],
)
@pytest.mark.parametrize(
    "spec", [{}, {"steps": None}, {"mcp": 1, "grants": [], "storage": "x", "server": {}}, {"x": "y"}]
)
async def test_a_poison_object_gets_a_verdict_and_stops_nobody(
    operator: Operator, rt: ResourceType, kind: str, spec: Any
) -> None:
    obj = {**declared(kind, "default"), "spec": spec, "status": {"conditions": "poison"}}
    operator.declare(rt, obj)
    operator.declare(POLICIES, declared("Policy", "healthy"))
    await operator.settle()
    assert operator.condition(rt, "default").get("status") in ("True", "False")
    assert operator.condition(POLICIES, "healthy")["status"] == "True"
