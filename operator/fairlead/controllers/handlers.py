"""The kopf side, kept thin: events go into `Observed`, changes become keys in the queue, kopf writes nothing.

Only `on.event` handlers: kopf keeps no progress, no last-handled state and no finalizers, and posts no Events, so
nothing that somebody writes into annotations can change what the operator does.
"""

from __future__ import annotations

from typing import Any

import kopf

from fairlead.controllers.affected import affected, counted
from fairlead.controllers.children import MANAGED_SELECTOR
from fairlead.controllers.clusterpolicy import COUNTS_SECONDS
from fairlead.controllers.login import Login
from fairlead.controllers.observed import Observed, name_of
from fairlead.controllers.plan import Object
from fairlead.controllers.queue import WorkQueue
from fairlead.controllers.reconcile import CHILDREN, WATCHED
from fairlead.kube.types import ResourceType

CHUNK = 500


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings under which kopf only watches."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.scanning.disabled = True
    settings.networking.enforce_retry_after = True
    settings.watching.chunk_size = CHUNK
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiffBase()
    for rt in CHILDREN:
        settings.watching.label_selectors[rt.group, rt.version, rt.plural] = MANAGED_SELECTOR
    return settings


def enqueue_affected(observed: Observed, queue: WorkQueue) -> None:
    """Have whatever a change concerns reconciled."""

    def enqueue(rt: ResourceType, before: Object | None, after: Object | None) -> None:
        for key in affected(rt, before, after, observed):
            queue.add(key)
        for key in counted(rt, before, after):
            queue.add(key, delay_seconds=COUNTS_SECONDS)

    observed.subscribe(enqueue)


def kopf_registry(observed: Observed) -> kopf.OperatorRegistry:
    """Return a registry whose handlers remember what they see."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(Login().session)
    for rt in WATCHED:
        kopf.on.event(rt.group, rt.version, rt.plural, registry=registry, id=rt.plural)(_handler(rt, observed))
    return registry


def _handler(rt: ResourceType, observed: Observed) -> Any:
    async def remember(event: Any, **_: Any) -> None:
        seen: Object = dict(event["object"])
        if event["type"] == "DELETED":
            observed.drop(rt, *name_of(seen))
        else:
            observed.put(rt, seen)

    return remember


class _NoProgress(kopf.ProgressStorage):
    """Remembers nothing: there are no handlers whose progress could matter."""

    def fetch(self, *, key: Any, body: Any) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        return None

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        return None

    def touch(self, *, body: Any, patch: Any, value: str | None) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _NoDiffBase(kopf.DiffBaseStorage):
    """Stores no last-handled state."""

    def fetch(self, *, body: Any) -> None:
        return None

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        return None
