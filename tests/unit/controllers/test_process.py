"""What surrounds the reconcilers: settings, probes, the resync, the uninstallation."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from tests.unit.controllers.declared import NAMESPACE, FakeCluster, Object, declared

from fairlead.controllers.app import App
from fairlead.controllers.handlers import enqueue_affected
from fairlead.controllers.observed import Observed
from fairlead.controllers.probes import probe_application
from fairlead.controllers.queue import Key, WorkQueue
from fairlead.controllers.reconcile import Reconciler
from fairlead.controllers.resync import Resync
from fairlead.controllers.settings import EngineImage, Settings
from fairlead.controllers.uninstall import uninstall
from fairlead.errors import LeaseLost, Unreachable
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.types import (
    DEPLOYMENTS,
    ENGINES,
    LEASES,
    POLICIES,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    TOOLS,
    WORKFLOWS,
    ResourceType,
)
from fairlead.telemetry.metrics import OperatorMetrics

ENVIRONMENT = {"POD_NAMESPACE": "fairlead-system", "POD_NAME": "one", "FAIRLEAD_ENGINE_IMAGE": "image:1"}


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(ENVIRONMENT | {"FAIRLEAD_ENGINE_DEFAULTS": '{"storage": {"size": "1Gi"}}'})
    assert settings.engine_image == EngineImage("image:1")
    assert settings.engine_defaults == {"storage": {"size": "1Gi"}}
    assert settings.resync_seconds == 60


@pytest.mark.parametrize(
    "wrong",
    [
        {"FAIRLEAD_ENGINE_DEFAULTS": '{"surprise": 1}'},
        {"FAIRLEAD_ENGINE_DEFAULTS": "nonsense"},
        {"FAIRLEAD_WORKERS": "many"},
    ],
)
def test_settings_that_make_no_sense_stop_the_operator_at_once(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Settings.from_environment(ENVIRONMENT | wrong)


@pytest.mark.parametrize("trouble", ["", "a key has waited for 400 s"])
async def test_the_process_says_whether_it_is_well_and_shows_its_metrics(trouble: str) -> None:
    metrics = OperatorMetrics()
    metrics.leader.set(1)
    application = probe_application(trouble=lambda: trouble, metrics=metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://operator") as client:
        health = await client.get("/healthz")
        assert (health.status_code, health.text) == ((503, trouble) if trouble else (200, "ok"))
        assert (await client.get("/readyz")).status_code == 200
        assert "fairlead_leader 1.0" in (await client.get("/metrics")).text
        assert (await client.get("/healthz/")).status_code == 404


@pytest.mark.requirement("F03")
async def test_an_operator_that_does_not_lead_writes_nothing_and_ends_rather_than_to_go_on() -> None:
    kube: Any = FakeCluster()
    app = App(kube, Settings("fairlead-system", "me", EngineImage("image"), {}))
    with pytest.raises(LeaseLost):
        kube.may_write()

    class Late:
        async def reconcile(self, key: Key) -> None:
            kube.may_write()

    app._reconciler = cast(Reconciler, Late())
    with pytest.raises(LeaseLost):
        await app._reconcile(Key("tools", NAMESPACE, "tickets"))


class Cluster(FakeCluster):
    """With runs in some namespaces, asked for as the resync does."""

    def __init__(self, *namespaces: str) -> None:
        super().__init__()
        self.namespaces = namespaces

    async def request(self, method: str, path: str, *, query: dict[str, str]) -> Object:
        assert (method, path) == ("GET", "/apis/fairlead.dev/v1alpha1/workflowruns")
        known = {term.partition("!=")[2] for term in query.get("fieldSelector", "").split(",")}
        found = [{"metadata": {"namespace": name}} for name in self.namespaces if name not in known]
        return {"items": found[: int(query["limit"])]}


class Scene:
    """A resync on a cluster in memory."""

    def __init__(self, cluster: Cluster) -> None:
        self.now = 0.0
        kube = cast(Kube, cluster)
        self.observed = Observed()
        self.queue = WorkQueue(clock=lambda: self.now)
        enqueue_affected(self.observed, self.queue)
        settings = Settings("fairlead-system", "me", EngineImage("image"), {})
        events = cast(EventRecorder, None)
        self.reconciler = Reconciler(kube, self.observed, settings, events, clock=lambda: self.now)
        self.resync = Resync(kube, self.observed, self.queue, self.reconciler, clock=lambda: self.now)

    def due(self) -> set[Key]:
        keys = set()
        while (key := self.queue.take()) is not None:
            keys.add(key)
            self.queue.done(key)
        return keys


async def test_a_resync_finds_what_no_event_told() -> None:
    cluster = Cluster()
    scene = Scene(cluster)
    scene.observed.put(WORKFLOWS, declared("Workflow", "deleted-unseen"))
    scene.due()
    cluster.has(TOOLS, declared("Tool"))
    await scene.resync.once(spread_seconds=0)
    assert scene.observed.get(WORKFLOWS, NAMESPACE, "deleted-unseen") is None
    keys = scene.due()
    assert Key("tools", NAMESPACE, "tickets") in keys
    assert Key("engines", NAMESPACE, "default") in keys


async def test_a_resync_spreads_its_work() -> None:
    cluster = Cluster()
    for number in range(10):
        cluster.has(POLICIES, declared("Policy", f"p{number}"))
    scene = Scene(cluster)
    await scene.resync.once(spread_seconds=0)
    scene.due()
    await scene.resync.once(spread_seconds=30)
    early = scene.due()
    scene.now += 30
    late = scene.due()
    assert len(early) < 3
    assert len(early | late) == 11


async def test_namespaces_with_runs_alone_are_found_one_after_the_other() -> None:
    scene = Scene(Cluster("a", "b", NAMESPACE))
    scene.observed.put(ENGINES, declared("Engine"))
    for _ in range(3):
        await scene.resync.once(spread_seconds=0)
    assert scene.reconciler.namespaces_with_runs >= {"a", "b"}
    assert Key("engines", "b", "default") in scene.due()


async def test_only_a_complete_list_counts_as_having_seen_the_cluster() -> None:
    class Broken(Cluster):
        async def list(self, rt: ResourceType, *_: Any, **__: Any) -> list[Object]:
            raise Unreachable(503, "busy")

    scene = Scene(Broken())
    scene.now = 100.0
    with pytest.raises(Unreachable):
        await scene.resync.once(spread_seconds=0)
    assert scene.resync.last_seen == 0.0


def labelled(rt: ResourceType, name: str, *, ours: bool = True, namespace: str = NAMESPACE) -> Object:
    labels = {"app.kubernetes.io/managed-by": "fairlead"} if ours else {}
    return {"kind": rt.kind, "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}}


async def test_uninstalling_stops_the_operator_first_and_removes_only_what_it_made() -> None:
    cluster = FakeCluster()
    cluster.has(DEPLOYMENTS, labelled(DEPLOYMENTS, "fairlead-operator", ours=False, namespace="fairlead-system"))
    cluster.has(LEASES, labelled(LEASES, "fairlead-operator", ours=False, namespace="fairlead-system"))
    for rt, name in ((ENGINES, "default"), (STATEFUL_SETS, "fairlead-engine"), (SERVICE_ACCOUNTS, "triage")):
        cluster.has(rt, labelled(rt, name))
    cluster.has(SERVICE_ACCOUNTS, labelled(SERVICE_ACCOUNTS, "deployer", ours=False))
    cluster.has(TOOLS, labelled(TOOLS, "tickets", ours=False))
    await uninstall(cast(Kube, cluster), operator_namespace="fairlead-system", pause_seconds=0)
    assert cluster.changes[0] == ("patch", "Deployment", "fairlead-operator")
    assert {(kind, name) for verb, kind, name in cluster.changes if verb == "delete"} == {
        ("Lease", "fairlead-operator"),
        ("Engine", "default"),
        ("StatefulSet", "fairlead-engine"),
        ("ServiceAccount", "triage"),
    }
    assert cluster.find(TOOLS, "tickets") is not None
