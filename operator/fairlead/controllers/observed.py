"""What the cluster looked like when last seen: the one cache that handlers fill and reconcilers read.

kopf reports changes, but after a gap in a watch nobody reports what was deleted meanwhile; so everything is listed
again now and then (`refresh`), and what the list no longer has is gone. Whichever way a change comes to be known - an
event, a list, or the answer to a write of our own - it is told once to whoever subscribed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fairlead.controllers.plan import Object
from fairlead.kube.types import ResourceType

Name = tuple[str, str]
Listener = Callable[[ResourceType, Object | None, Object | None], None]


def name_of(obj: Mapping[str, Any]) -> Name:
    """Return an object's namespace ("" for one of the cluster) and name."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Observed:
    """Objects by type, namespace and name. Nobody changes what is handed out."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._objects: dict[ResourceType, dict[str, dict[str, Object]]] = {}
        # What changed while its type is being listed: the list may be older than that.
        self._touched: dict[ResourceType, set[Name]] = {}

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(type, before, after)` for every change from now on; None stands for no object."""
        self._listeners.append(listener)

    def get(self, rt: ResourceType, namespace: str, name: str) -> Object | None:
        """Return one object as last seen."""
        return self._objects.get(rt, {}).get(namespace, {}).get(name)

    def of(self, rt: ResourceType, namespace: str) -> list[Object]:
        """Return a namespace's objects of one type, by name."""
        found = self._objects.get(rt, {}).get(namespace, {})
        return [found[name] for name in sorted(found)]

    def names(self, rt: ResourceType) -> list[Name]:
        """Return namespace and name of every object of one type."""
        return [(namespace, name) for namespace, found in self._objects.get(rt, {}).items() for name in found]

    def put(self, rt: ResourceType, obj: Mapping[str, Any]) -> Object | None:
        """Remember an object and return what it was before; what is older than what is known is not believed."""
        known = self.get(rt, *name_of(obj))
        if known is not None and _is_older(obj, known):
            return known
        return self._set(rt, *name_of(obj), _slim(rt, obj))

    def drop(self, rt: ResourceType, namespace: str, name: str) -> Object | None:
        """Forget an object that was deleted and return what it was."""
        return self._set(rt, namespace, name, None)

    async def refresh(self, rt: ResourceType, read: Callable[[], Awaitable[list[Object]]]) -> None:
        """Replace everything of one type by what `read` lists, but for what an event changed in the meantime."""
        touched = self._touched[rt] = set()
        try:
            listed = {name_of(obj): obj for obj in await read()}
        finally:
            del self._touched[rt]
        for namespace, name in self.names(rt):
            if (namespace, name) not in listed and (namespace, name) not in touched:
                self.drop(rt, namespace, name)
        for place, obj in listed.items():
            if place not in touched:
                self.put(rt, obj)

    def _set(self, rt: ResourceType, namespace: str, name: str, obj: Object | None) -> Object | None:
        if rt in self._touched:
            self._touched[rt].add((namespace, name))
        found = self._objects.setdefault(rt, {}).setdefault(namespace, {})
        before = found.pop(name, None)
        if obj is not None:
            found[name] = obj
        elif not found:
            del self._objects[rt][namespace]
        if _version(before) != _version(obj):
            for listener in self._listeners:
                listener(rt, before, obj)
        return before


def _is_older(obj: Mapping[str, Any], known: Object) -> bool:
    """Tell whether an answer to a write was overtaken: an event of before it may arrive after it."""
    ours, theirs = known["metadata"], obj["metadata"]
    return ours["uid"] == theirs["uid"] and int(ours["resourceVersion"]) > int(theirs["resourceVersion"])


def _version(obj: Object | None) -> tuple[str, str] | None:
    return None if obj is None else (obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])


def _slim(rt: ResourceType, obj: Mapping[str, Any]) -> Object:
    """Return the object with its type and without what nobody here reads: the managed fields are half of its size."""
    head = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "apiVersion": rt.api_version, "kind": rt.kind, "metadata": head}
