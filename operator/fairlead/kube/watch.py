"""An informer: one namespace's (or all) objects of one type, kept current from a list and a watch.

It must never be wrong for long: a stream that is silent, expired or broken is replaced; deletions that happened
meanwhile are synthesised from the next list; and now and then everything is listed again whatever the watch said.
Whoever reads `objects` can ask by `last_seen` how old that knowledge may be.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from fairlead.errors import KubeError, Unreachable
from fairlead.kube.client import GONE, Kube
from fairlead.kube.pace import Backoff
from fairlead.kube.types import ResourceType

_log = logging.getLogger(__name__)
_TOMBSTONES = 1000
_SHORTEST_STREAM_SECONDS = 1.0

Object = dict[str, Any]
Key = tuple[str, str]


class Informer:
    """Objects of one type as last seen, and a callback for every change.

    Attributes:
        objects: by (namespace, name); the namespace is "" for cluster-scoped types. Without `managedFields`.
        synced: set once the first list is complete.
        last_seen: monotonic time of the last word from the server (list, event or bookmark); -inf before the first.
    """

    def __init__(
        self,
        kube: Kube,
        rt: ResourceType,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        on_change: Callable[[Object | None, Object | None], None],
        on_restart: Callable[[str], None] = lambda reason: None,
        inactivity_seconds: float = 75.0,
        resync_seconds: float = 600.0,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is asked before `run`.

        Args:
            kube: the client.
            rt: what to watch.
            namespace: None for all namespaces.
            label_selector: evaluated by the server.
            on_change: called with (old, new): (None, new) added, (old, new) changed, (old, None) deleted. An object
                that was replaced by another of the same name is deleted, then added. At a resync every object is
                reported, changed or not. Must not wait; what it raises ends `run`.
            on_restart: called with a reason whenever a stream ends otherwise than agreed, for a metric.
            inactivity_seconds: a silent stream is given up after this; the server sends a bookmark every minute.
            resync_seconds: list everything again after this, whatever the watch said.
            backoff: between failures.
            clock: monotonic seconds.
        """
        self.objects: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self.last_seen = -math.inf
        self._kube = kube
        self._rt = rt
        self._namespace = namespace
        self._label_selector = label_selector
        self._on_change = on_change
        self._on_restart = on_restart
        self._inactivity_seconds = inactivity_seconds
        self._resync_seconds = resync_seconds
        self._backoff = backoff or Backoff(first_seconds=0.5, longest_seconds=30)
        self._clock = clock
        # None: list before watching. Otherwise where the next watch starts.
        self._version: str | None = None
        self._resync_at = -math.inf
        # Deleted objects by their last version: a late event must not bring one back.
        self._tombstones: OrderedDict[Key, str] = OrderedDict()

    async def run(self) -> None:
        """Keep `objects` current until cancelled. Errors of the API server are retried for ever."""
        while True:
            try:
                version = self._version
                if version is None or self._clock() >= self._resync_at:
                    version = await self._relist()
                await self._watch(version)
            except KubeError as error:
                reason = self._restart_reason(error)
                self._on_restart(reason)
                # Silence has been waiting enough.
                wait = 0.0 if reason == "Silent" else self._backoff.next_seconds(error.retry_after_seconds)
                _log.warning("watching %s again in %.1f s (%s): %s", self._rt.plural, wait, reason, error)
                await asyncio.sleep(wait)

    def _restart_reason(self, error: KubeError) -> str:
        """Name what ended the stream. Only after a dropped one may the next go on where it stopped."""
        silent = isinstance(error.__cause__, TimeoutError)
        if isinstance(error, Unreachable) and error.status == 0 and not silent:
            return "Dropped"
        self._version = None
        if silent:
            return "Silent"
        return "Expired" if error.status == GONE else "Error"

    async def _relist(self) -> str:
        """Read everything and report the differences, deletions included; at a resync also what is the same.

        Returns:
            The resourceVersion from which to watch.
        """
        resync = self._version is not None
        asked_at = self._clock()
        items, version = await self._kube.snapshot(self._rt, self._namespace, label_selector=self._label_selector)
        present = {_key(item): item for item in items}
        for key in self.objects.keys() - present.keys():
            self._forget(key)
        self._tombstones.clear()
        for key, item in present.items():
            self._store(key, item, report_same=resync)
        self._version = version
        self._resync_at = asked_at + self._resync_seconds
        self.last_seen = asked_at
        self.synced.set()
        return version

    async def _watch(self, version: str) -> None:
        """Follow one stream until the server ends it or a resync is due.

        Raises:
            KubeError: it ended otherwise, or before anything could have come.
        """
        started_at = self._clock()
        remaining = max(1, math.ceil(self._resync_at - started_at))
        events = self._kube.watch(
            self._rt,
            self._namespace,
            resource_version=version,
            label_selector=self._label_selector,
            inactivity_seconds=self._inactivity_seconds,
            timeout_seconds=remaining,
        )
        async with aclosing(events):
            async for event in events:
                self._take(event["type"], event["object"])
                self.last_seen = self._clock()
                self._backoff.succeeded()
                if self.last_seen >= self._resync_at:
                    return
        if self.last_seen < started_at and self._clock() - started_at < _SHORTEST_STREAM_SECONDS:
            raise Unreachable(0, "the stream ended at once")

    def _take(self, event_type: str, obj: Object) -> None:
        """Fold one event in.

        Raises:
            KubeError: the event says that the stream is over, with the status it names.
        """
        if event_type == "ERROR":
            raise KubeError(int(obj.get("code", 0)), str(obj.get("message", "")))
        version = obj["metadata"]["resourceVersion"]
        if event_type != "BOOKMARK":
            key = _key(obj)
            if not _newer(version, self._known_version(key)):
                return  # a duplicate, or late
            if event_type == "DELETED":
                self._forget(key)
                self._bury(key, version)
            else:
                self._store(key, obj)
        if self._version is None or _newer(version, self._version):
            self._version = version

    def _known_version(self, key: Key) -> str | None:
        if key in self.objects:
            return str(self.objects[key]["metadata"]["resourceVersion"])
        return self._tombstones.get(key)

    def _store(self, key: Key, new: Object, *, report_same: bool = False) -> None:
        new["metadata"].pop("managedFields", None)  # more than half of the bytes, and nobody reads it
        old = self.objects.get(key)
        if old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]:
            self._forget(key)
            old = None
        same = old is not None and old["metadata"]["resourceVersion"] == new["metadata"]["resourceVersion"]
        self.objects[key] = new
        if report_same or not same:
            self._on_change(old, new)

    def _forget(self, key: Key) -> None:
        old = self.objects.pop(key, None)
        if old is not None:
            self._on_change(old, None)

    def _bury(self, key: Key, version: str) -> None:
        self._tombstones[key] = version
        self._tombstones.move_to_end(key)
        if len(self._tombstones) > _TOMBSTONES:
            self._tombstones.popitem(last=False)


def _key(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _newer(version: str, known: str | None) -> bool:
    """Compare two resourceVersions: numbers that grow, as Kubernetes defines since 1.35 and etcd always had it."""
    return known is None or int(version) > int(known)
