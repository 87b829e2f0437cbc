"""Objects as the API server returns them: specimens with the metadata that it adds, and a server in memory."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from tests.specimens import changed, specimen

from fairlead.errors import Conflict, NotFound
from fairlead.kube.types import NAMESPACES, ResourceType

NAMESPACE = "team"
Object = dict[str, Any]


def declared(
    kind: str, name: str | None = None, *, changes: Mapping[str, Any] | None = None, namespace: str = NAMESPACE
) -> Object:
    """A specimen that was created in a namespace."""
    obj = changed(specimen(kind), changes or {})
    name = name or obj["metadata"]["name"]
    obj["metadata"] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-of-{kind}-{name}",
        "generation": 1,
        "resourceVersion": "1",
        **{key: value for key, value in obj["metadata"].items() if key != "name"},
    }
    return obj


def namespace(name: str = NAMESPACE, **labels: str) -> Object:
    """A Namespace."""
    metadata: Object = {"name": name, "uid": f"uid-of-{name}", "resourceVersion": "1", "labels": labels}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def account(name: str, *, ours: bool = False, owners: tuple[str, ...] = (), adopt: bool = False) -> Object:
    """A ServiceAccount; `owners` are uids."""
    metadata: Object = {"name": name, "namespace": NAMESPACE, "uid": f"uid-of-{name}", "resourceVersion": "1"}
    if ours:
        metadata["labels"] = {"app.kubernetes.io/managed-by": "fairlead"}
    if adopt:
        metadata["annotations"] = {"fairlead.dev/adopt": "true"}
    metadata["ownerReferences"] = [{"uid": uid} for uid in owners]
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def ready(obj: Object, *, status: str = "True", generation: int = 1, message: str = "") -> Object:
    """The object with a Ready condition."""
    condition = {
        "type": "Ready",
        "status": status,
        "reason": "Ready",
        "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": generation,
    }
    return {**obj, "status": {"observedGeneration": generation, "conditions": [condition]}}


def available(deployment: Object) -> Object:
    """A Deployment or StatefulSet whose one pod serves."""
    generation = deployment["metadata"].get("generation", 1)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    revisions = {"currentRevision": "a", "updateRevision": "a"}
    return {**deployment, "status": {"observedGeneration": generation, **counts, **revisions}}


class FakeCluster:
    """The part of `Kube` that the operator uses, in memory; remembers every change in order.

    `refuse` maps a kind to the error that every write of it gets.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        for name in (NAMESPACE, "other"):
            self.has(NAMESPACES, namespace(name))
        self.changes: list[tuple[str, str, str]] = []
        self.refuse: dict[str, Exception] = {}
        self._applied: dict[tuple[str, str], set[str]] = {}
        self._versions = itertools.count(100)

    def has(self, rt: ResourceType, obj: Object) -> Object:
        """Put an object there without it being a change."""
        self.objects[rt.kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]] = obj
        return obj

    def find(self, rt: ResourceType, name: str, namespace: str = NAMESPACE) -> Object | None:
        return self.objects.get((rt.kind, namespace, name))

    async def get(self, rt: ResourceType, name: str, namespace: str | None = None) -> Object:
        return copy.deepcopy(self._existing(rt, namespace or "", name))

    async def list(
        self, rt: ResourceType, namespace: str | None = None, *, label_selector: str | None = None
    ) -> list[Object]:
        wanted = dict(pair.split("=") for pair in (label_selector or "").split(",") if pair)
        return [
            copy.deepcopy(obj)
            for (kind, where, _), obj in sorted(self.objects.items())
            if kind == rt.kind
            and namespace in (None, where)
            and wanted.items() <= (obj["metadata"].get("labels") or {}).items()
        ]

    async def create(self, rt: ResourceType, obj: Object, namespace: str | None = None) -> Object:
        if self.find(rt, obj["metadata"]["name"], obj["metadata"]["namespace"]):
            raise Conflict(409, "exists")
        return self._write("create", rt, obj)

    async def apply(self, rt: ResourceType, obj: Object, *, manager: str, force: bool = True) -> Object:
        """Keep what others have in a spec, as the server does: only what was applied before goes."""
        assert manager == "fairlead-operator"
        name, spec = obj["metadata"]["name"], obj.get("spec", {})
        standing = (self.find(rt, name, obj["metadata"].get("namespace", "")) or {}).get("spec", {})
        others = {key: value for key, value in standing.items() if key not in self._applied.get((rt.kind, name), spec)}
        self._applied[rt.kind, name] = {*spec}
        return self._write("apply", rt, {**obj, "spec": others | spec} if "spec" in obj else obj)

    async def apply_status(self, rt: ResourceType, obj: Object, *, manager: str) -> Object:
        standing = self._existing(rt, obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        if obj["metadata"]["resourceVersion"] != standing["metadata"]["resourceVersion"]:
            raise Conflict(409, "stale")
        return self._write("status", rt, {"metadata": standing["metadata"], "status": obj["status"]})

    async def delete(
        self, rt: ResourceType, name: str, namespace: str | None = None, *, uid: str | None = None
    ) -> None:
        standing = self._existing(rt, namespace or "", name)
        if uid is not None and standing["metadata"]["uid"] != uid:
            raise Conflict(409, "another")
        self.changes.append(("delete", rt.kind, name))
        del self.objects[rt.kind, namespace or "", name]

    async def patch(
        self, rt: ResourceType, name: str, namespace: str | None, body: Object, *, subresource: str | None = None
    ) -> Object:
        spec = self._existing(rt, namespace or "", name).get("spec", {}) | body["spec"]
        left = {key: value for key, value in spec.items() if value is not None}
        return self._write("patch", rt, {"metadata": {"name": name, "namespace": namespace}, "spec": left})

    def _existing(self, rt: ResourceType, namespace: str, name: str) -> Object:
        found = self.objects.get((rt.kind, namespace, name))
        if found is None:
            raise NotFound(404, f"{rt.plural} {name} not found")
        return found

    def _write(self, verb: str, rt: ResourceType, obj: Object) -> Object:
        if rt.kind in self.refuse:
            raise self.refuse[rt.kind]
        metadata = obj["metadata"]
        place = (rt.kind, metadata.get("namespace", ""), metadata["name"])
        before = self.objects.get(place)
        after = {"apiVersion": rt.api_version, "kind": rt.kind, **(before or {}), **copy.deepcopy(obj)}
        after["metadata"] = {
            "uid": f"uid-of-{rt.kind}-{metadata['name']}",
            "generation": 1,
            "resourceVersion": "1",
            **(before or {}).get("metadata", {}),
            **metadata,
        }
        if after != before:
            after["metadata"]["resourceVersion"] = str(next(self._versions))
            self.changes.append((verb, rt.kind, metadata["name"]))
            if before is not None and after.get("spec") != before.get("spec"):
                after["metadata"]["generation"] = before["metadata"].get("generation", 1) + 1
        self.objects[place] = after
        return copy.deepcopy(after)
