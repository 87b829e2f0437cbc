"""Kubernetes Events for transitions: few, deduplicated, and never in anybody's way.

`emit` only queues; `run` writes. What is repeated within ten minutes raises the count of one Event instead of making
another; when the queue is full or the server refuses, the Event is dropped and counted: Events are a courtesy, the
conditions and the journal are the record.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fairlead.errors import KubeError
from fairlead.kube.client import Kube
from fairlead.kube.pace import TokenBucket
from fairlead.kube.types import EVENTS

_log = logging.getLogger(__name__)
_QUEUE_LENGTH = 1000
_REMEMBERED = 4096
_MESSAGE_CHARACTERS = 1024


@dataclass(slots=True)
class _Series:
    """One Event as it was last written."""

    first_at: str
    count: int
    written_at: float


class EventRecorder:
    """Writes Events about objects. `dropped` counts those that were not written."""

    def __init__(
        self,
        kube: Kube,
        *,
        component: str,
        instance: str,
        quiet_seconds: float = 600.0,
        rate: TokenBucket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is written before `run`.

        Args:
            kube: the client.
            component: who speaks, for example `fairlead-operator`.
            instance: which process, for example the pod's name.
            quiet_seconds: the same Event within this time is counted but not written.
            rate: how many are written; by default one a second after a burst of 25.
            clock: monotonic seconds.
        """
        self.dropped = 0
        self._kube = kube
        self._component = component
        self._instance = instance
        self._quiet_seconds = quiet_seconds
        self._rate = rate or TokenBucket(per_second=1, burst=25)
        self._clock = clock
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_QUEUE_LENGTH)
        self._series: OrderedDict[str, _Series] = OrderedDict()

    def emit(self, obj: Mapping[str, Any], *, reason: str, message: str, warning: bool = False) -> None:
        """Say that something happened to an object. Never waits, never fails.

        Args:
            obj: the object: apiVersion, kind and metadata with name, namespace and uid.
            reason: a stable reason of `api/reasons.py`.
            message: for people, without content; cut at 1024 characters.
            warning: something that a person should look at.
        """
        metadata = obj["metadata"]
        message = message[:_MESSAGE_CHARACTERS]
        digest = hashlib.sha256(f"{metadata['uid']}\n{reason}\n{message}".encode()).hexdigest()[:16]
        name = f"{metadata['name']}.{digest}"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        series = self._remember(name, now)
        if series.count > 1 and self._clock() - series.written_at < self._quiet_seconds:
            return
        series.written_at = self._clock()
        event = {
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": obj["apiVersion"],
                "kind": obj["kind"],
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": series.first_at,
            "lastTimestamp": now,
            "count": series.count,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1

    async def run(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            event = await self._queue.get()
            await self._rate.take()
            try:
                # The name follows from what is said, so a repetition, also after a restart, is the same object.
                await self._kube.apply(EVENTS, event, manager=self._component)
            except KubeError as error:
                self.dropped += 1
                _log.warning("event %s dropped: %s", event["reason"], error)
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until what is queued was written or dropped; `run` must be running."""
        await self._queue.join()

    def _remember(self, name: str, now: str) -> _Series:
        """Count one more of this Event and return its series."""
        series = self._series.setdefault(name, _Series(first_at=now, count=0, written_at=0.0))
        self._series.move_to_end(name)
        series.count += 1
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        return series
