"""How long what has ended stays: WorkflowRuns as their Workflow's `retention` says, journals as long as their run.

    WorkflowRun   deleted by age or number, if it was made with generateName; who named a run deletes it
    journal       deleted when its WorkflowRun is gone, or long after the end; not while an open run goes on from it
    its UID       known for as long as anything could still show the WorkflowRun, so that it is never executed again

Level-triggered: every sweep looks at what is there now, does a bounded part of what is due, and nothing is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from fairlead.api.workflow import Retention
from fairlead.engine.roster import Roster
from fairlead.engine.seams import Cluster, Resources
from fairlead.engine.store import Store
from fairlead.errors import KubeError
from fairlead.flow.journal import RunUid

SWEEP_SECONDS = 10.0
PER_SWEEP = 200
"""So many objects and so many journals are deleted at once; the rest waits for the next sweep."""

JOURNAL_MS = 30 * 86_400_000
"""How long the journal of a finished run is kept while its object stays."""

TOMBSTONE_MS = 3_600_000
"""How long a UID is known after its journal: longer than a list or watch can lag behind."""

Object = Mapping[str, Any]

_log = logging.getLogger(__name__)


class Sweeper:
    """Deletes what has ended and is no longer kept."""

    def __init__(
        self, store: Store, *, resources: Resources, cluster: Cluster, roster: Roster, clock: Callable[[], int]
    ) -> None:
        """Take where runs, Workflows and journals are; `clock` gives Unix ms."""
        self._store = store
        self._resources = resources
        self._cluster = cluster
        self._roster = roster
        self._clock = clock

    async def run(self) -> None:
        """Sweep until cancelled; not at once, so that whoever makes runs sees first what an earlier process left."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.sweep()

    async def sweep(self) -> None:
        """Delete a bounded part of what is due.

        Raises:
            StoreError: the journal cannot be written.
        """
        await self._delete_objects()
        objects = {RunUid(obj["metadata"]["uid"]): obj for obj in self._cluster.runs()}
        self._forget_journals(objects)
        self._drop_tombstones(objects)
        await self._store.durable()

    async def _delete_objects(self) -> None:
        kept = {name: workflow.spec.retention for name, workflow in self._resources.workflows.items()}
        bounds = {name: retention for name, retention in kept.items() if retention is not None}
        try:
            for obj in surplus(self._cluster.runs(), bounds, now_ms=self._clock())[:PER_SWEEP]:
                await self._cluster.delete_run(obj["metadata"]["name"], obj["metadata"]["uid"])
        except KubeError as error:
            _log.warning("finished runs are not deleted yet: %s", error)

    def _forget_journals(self, objects: Mapping[RunUid, Object]) -> None:
        old_ms, needed = self._clock() - JOURNAL_MS, {run.retries for run in self._roster.all()}
        due = (
            (uid, run)
            for uid, run in self._store.ended_runs().items()
            if uid not in objects or (run.at <= old_ms and finished_at(objects[uid]) is not None)
            if uid not in needed
        )
        for uid, run in list(islice(due, PER_SWEEP)):
            self._store.forget(uid)
            self._roster.count_ended({(run.workflow, run.state): -1})

    def _drop_tombstones(self, objects: Mapping[RunUid, Object]) -> None:
        old_ms = self._clock() - TOMBSTONE_MS
        due = (uid for uid, run in self._store.forgotten_runs().items() if uid not in objects and run.at <= old_ms)
        for uid in list(islice(due, PER_SWEEP)):
            self._store.drop(uid)


def surplus(objects: Iterable[Object], bounds: Mapping[str, Retention], *, now_ms: int) -> list[Object]:
    """Return the WorkflowRuns that are to be deleted, those that ended first first.

    Args:
        objects: WorkflowRuns. Only what is finished, and was made with generateName, is counted and chosen.
        bounds: `retention` by Workflow. Runs of other Workflows, and of those that are gone, stay.
        now_ms: Unix ms.
    """
    ended: dict[tuple[str, bool], list[tuple[int, Object]]] = defaultdict(list)
    for obj in objects:
        at_ms = finished_at(obj)
        if at_ms is None or not obj["metadata"].get("generateName"):
            continue
        workflow = obj["spec"].get("workflow") if isinstance(obj["spec"], Mapping) else None
        if isinstance(workflow, str) and workflow in bounds:
            ended[workflow, _is_true(obj, "Succeeded")].append((at_ms, obj))
    chosen: list[tuple[int, Object]] = []
    for (workflow, succeeded), runs in ended.items():
        retention = bounds[workflow]
        most = retention.succeeded if succeeded else retention.failed
        ttl = retention.ttl_seconds_after_finished
        runs.sort(key=lambda run: run[0], reverse=True)
        chosen += runs[most:] if most is not None else ()
        if ttl is not None:
            chosen += (run for run in runs[:most] if run[0] + ttl * 1000 <= now_ms)
    return [obj for _, obj in sorted(chosen, key=lambda run: run[0])]


def finished_at(obj: Object) -> int | None:
    """Return the Unix ms since which a WorkflowRun is Finished, None if it is not, or its status is not understood."""
    finished = _condition(obj, "Finished")
    if finished.get("status") != "True":
        return None
    try:
        return int(datetime.fromisoformat(finished["lastTransitionTime"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _is_true(obj: Object, type_: str) -> bool:
    return bool(_condition(obj, type_).get("status") == "True")


def _condition(obj: Object, type_: str) -> Mapping[str, Any]:
    status = obj.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    found = (one for one in conditions if isinstance(one, Mapping)) if isinstance(conditions, list) else ()
    return next((condition for condition in found if condition.get("type") == type_), {})
