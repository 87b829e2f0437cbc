"""Now and then everything is listed and looked at again, whatever the watches said.

That is what heals a missed event, a child that somebody changed or deleted, and a status that was overwritten.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from fairlead.controllers.affected import all_keys
from fairlead.controllers.children import MANAGED_SELECTOR
from fairlead.controllers.engine_objects import ENGINE
from fairlead.controllers.observed import Observed
from fairlead.controllers.plan import Object
from fairlead.controllers.queue import Key, WorkQueue
from fairlead.controllers.reconcile import CHILDREN, WATCHED, Reconciler
from fairlead.errors import KubeError
from fairlead.kube.client import Kube
from fairlead.kube.types import ENGINES, WORKFLOW_RUNS, ResourceType

_log = logging.getLogger(__name__)


class Resync:
    """Lists everything, first at start. `last_seen` is the monotonic time of the last complete list."""

    def __init__(
        self, kube: Kube, observed: Observed, queue: WorkQueue, reconciler: Reconciler, *, clock: Callable[[], float]
    ) -> None:
        self.last_seen = clock()
        self._kube = kube
        self._observed = observed
        self._queue = queue
        self._reconciler = reconciler
        self._clock = clock

    async def once(self, *, spread_seconds: float) -> None:
        """List everything and enqueue every key, spread over so many seconds.

        Raises:
            KubeError: something could not be listed.
        """
        for rt in WATCHED:
            await self._observed.refresh(rt, partial(self._read, rt))
        await self._find_runs_without_engine()
        self.last_seen = self._clock()
        keys = sorted(all_keys(self._observed))
        for position, key in enumerate(keys):
            self._queue.add(key, delay_seconds=spread_seconds * position / len(keys))

    async def run(self, *, interval_seconds: float) -> None:
        """Do it again and again; a list that fails is tried again with the next round."""
        while True:
            await asyncio.sleep(interval_seconds)
            try:
                await self.once(spread_seconds=interval_seconds / 2)
            except KubeError as error:
                _log.warning("could not list everything: %s", error)

    async def _read(self, rt: ResourceType) -> list[Object]:
        return await self._kube.list(rt, label_selector=MANAGED_SELECTOR if rt in CHILDREN else None)

    async def _find_runs_without_engine(self) -> None:
        """Find one namespace that has runs but no Engine. Runs are too many to be watched by the operator."""
        known = {namespace for namespace, name in self._observed.names(ENGINES) if name == ENGINE}
        known |= self._reconciler.namespaces_with_runs
        query = {"limit": "1"}
        if known:
            query["fieldSelector"] = ",".join(f"metadata.namespace!={namespace}" for namespace in sorted(known))
        found = await self._kube.request("GET", WORKFLOW_RUNS.path(), query=query)
        for run in found["items"]:
            namespace = run["metadata"]["namespace"]
            self._reconciler.namespaces_with_runs.add(namespace)
            self._queue.add(Key(ENGINES.plural, namespace, ENGINE))
