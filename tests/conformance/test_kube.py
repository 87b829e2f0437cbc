"""Our client, informer, lease and events against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.kubectl import Kubectl
from tests.specimens import specimen

from fairlead.errors import Conflict, KubeError, LeaseLost, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.lease import Lease
from fairlead.kube.types import CONFIG_MAPS, EVENTS, LEASES, WORKFLOW_RUNS
from fairlead.kube.watch import Informer

pytestmark = pytest.mark.cluster


@pytest.fixture
async def kube(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kube]:
    """A client with the administrator's rights."""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    client = await Kube.connect()
    yield client
    await client.close()


def config_map(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


async def test_apply_makes_changes_and_prunes_only_what_is_ours(kube: Kube, namespace: str) -> None:
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", ours="1", gone="1"), manager="us")
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", theirs="1"), manager="them")
    await kube.apply(CONFIG_MAPS, config_map(namespace, "a", ours="2"), manager="us")
    assert (await kube.get(CONFIG_MAPS, "a", namespace))["data"] == {"ours": "2", "theirs": "1"}
    with pytest.raises(Conflict):
        await kube.apply(CONFIG_MAPS, config_map(namespace, "a", theirs="2"), manager="us", force=False)


async def test_apply_refuses_unknown_fields(kube: Kube, namespace: str) -> None:
    with pytest.raises(KubeError, match="surprise: field not declared in schema"):
        await kube.apply(CONFIG_MAPS, config_map(namespace, "a") | {"surprise": 1}, manager="us")


async def test_a_delete_spares_the_next_object_of_that_name(kube: Kube, namespace: str) -> None:
    first = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    await kube.delete(CONFIG_MAPS, "a", namespace, uid=first["metadata"]["uid"])
    await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    with pytest.raises(Conflict):
        await kube.delete(CONFIG_MAPS, "a", namespace, uid=first["metadata"]["uid"])
    with pytest.raises(NotFound):
        await kube.delete(CONFIG_MAPS, "b", namespace)


@pytest.mark.usefixtures("crds")
async def test_a_status_from_an_old_look_is_a_conflict(kube: Kube, namespace: str) -> None:
    obj = specimen("WorkflowRun")
    seen = await kube.create(WORKFLOW_RUNS, obj, namespace)
    where = {"name": obj["metadata"]["name"], "namespace": namespace}
    version = seen["metadata"]["resourceVersion"]
    status = {"metadata": {**where, "resourceVersion": version}, "status": {"progress": "1/2"}}
    written = await kube.apply_status(WORKFLOW_RUNS, status, manager="us")
    assert written["status"] == {"progress": "1/2"}
    stale = {**status, "status": {"progress": "2/2"}}
    with pytest.raises(Conflict):
        await kube.apply_status(WORKFLOW_RUNS, stale, manager="us")


async def test_an_informer_follows_what_kubectl_does(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    await kube.create(CONFIG_MAPS, config_map(namespace, "before"))
    changes: asyncio.Queue[tuple[str, str | None]] = asyncio.Queue()

    def on_change(old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new or old
        assert obj is not None
        if obj["metadata"]["name"] != "kube-root-ca.crt":
            changes.put_nowait((obj["metadata"]["name"], None if new is None else new.get("data", {}).get("x")))

    informer = Informer(kube, CONFIG_MAPS, namespace=namespace, on_change=on_change)
    task = asyncio.create_task(informer.run())
    async with asyncio.timeout(30):
        assert await changes.get() == ("before", None)
        await asyncio.to_thread(kubectl, "create", "configmap", "a", "--from-literal=x=1")
        assert await changes.get() == ("a", "1")
        await asyncio.to_thread(kubectl, "patch", "configmap", "a", "--type=merge", '-p={"data":{"x":"2"}}')
        assert await changes.get() == ("a", "2")
        await asyncio.to_thread(kubectl, "delete", "configmap", "a")
        assert await changes.get() == ("a", None)
    task.cancel()
    assert (namespace, "before") in informer.objects


async def test_a_list_longer_than_a_chunk_is_whole(kube: Kube, namespace: str) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(kube.create(CONFIG_MAPS, config_map(namespace, f"n{number}")))
    listed = await kube.list(CONFIG_MAPS, namespace)
    pages, more = 0, ""
    while True:
        query = {"limit": "7"} | ({"continue": more} if more else {})
        page = await kube.request("GET", CONFIG_MAPS.path(namespace), query=query)
        pages, more = pages + 1, page["metadata"].get("continue", "")
        if not more:
            break
    assert pages > 3
    assert {f"n{number}" for number in range(30)} <= {item["metadata"]["name"] for item in listed}


async def test_a_lease_is_held_by_one_and_lost_when_it_is_taken(kube: Kube, namespace: str) -> None:
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.Event().wait()

    lease = Lease(kube, name="leader", namespace=namespace, identity="a", retry_seconds=0.1)
    task = asyncio.create_task(lease.run(work))
    async with asyncio.timeout(30):
        await started.wait()
        record = await kube.get(LEASES, "leader", namespace)
        assert record["spec"]["holderIdentity"] == "a"
        await kube.patch(LEASES, "leader", namespace, {"spec": {"holderIdentity": "b"}})
        with pytest.raises(LeaseLost, match="held by b"):
            await task


async def test_a_repeated_event_is_one_object_that_kubectl_shows(kube: Kube, kubectl: Kubectl, namespace: str) -> None:
    obj = await kube.create(CONFIG_MAPS, config_map(namespace, "a"))
    recorder = EventRecorder(kube, component="fairlead-test", instance="x", quiet_seconds=0)
    task = asyncio.create_task(recorder.run())
    for _ in range(3):
        recorder.emit(obj, reason="Denied", message="no grant", warning=True)
    async with asyncio.timeout(30):
        await recorder.flush()
    task.cancel()
    (event,) = [event for event in await kube.list(EVENTS, namespace) if event["reason"] == "Denied"]
    assert (event["count"], recorder.dropped) == (3, 0)
    shown = await asyncio.to_thread(kubectl, "events", "--for=configmap/a")
    assert "no grant" in shown
