"""Runs that a schedule makes: `triggers.schedules` of every Workflow that is Ready.

Each schedule has one row in the store: up to which time everything is decided. A due time becomes a WorkflowRun first,
then the row moves. The run's name is a hash of the Workflow's UID, the schedule and the time, so that a time whose row
did not move, because of a crash or an answer that was lost, becomes the same run again and never a second one. Somebody
else's run of that name is not taken for it: that is told, until that run is gone or the schedule's next time has come.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fairlead.api import API_VERSION
from fairlead.api.conditions import timestamp
from fairlead.api.run import WorkflowRun
from fairlead.api.workflow import Schedule, Workflow
from fairlead.engine.acceptance import is_ready
from fairlead.engine.seams import Cluster, Resources
from fairlead.engine.store import ScheduleRow, Store
from fairlead.errors import KubeError
from fairlead.flow.cron import last_due_ms, next_due_ms

SCHEDULE_LABEL = "fairlead.dev/schedule"
SCHEDULED_AT = "fairlead.dev/scheduled-at"
"""The annotation with the time that a run was made for."""

LATE_MS = 60_000
"""A time that is further back was missed."""

RETRY_MS = 5_000
LONGEST_WAIT_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Schedules:
    """Makes runs when they are due."""

    def __init__(
        self,
        store: Store,
        *,
        resources: Resources,
        cluster: Cluster,
        on_made: Callable[[str], None],
        on_taken: Callable[[Workflow, str], None],
        clock: Callable[[], int],
    ) -> None:
        """Take the seams.

        Args:
            store: where the rows are.
            resources: what is declared.
            cluster: where runs are made.
            on_made: called with a Workflow's name when its next time is another one.
            on_taken: called with a Workflow and a sentence when a run cannot be made, because another one has its name.
            clock: Unix time in ms.
        """
        self._store = store
        self._resources = resources
        self._cluster = cluster
        self._on_made = on_made
        self._on_taken = on_taken
        self._clock = clock
        self._woken = asyncio.Event()

    def changed(self) -> None:
        """Look again: Workflows changed."""
        self._woken.set()

    async def run(self) -> None:
        """Make runs until cancelled.

        Raises:
            StoreError: the store cannot be read or written.
        """
        while True:
            self._woken.clear()
            next_ms = await self.look()
            seconds = (next_ms - self._clock()) / 1000 if next_ms is not None else LONGEST_WAIT_SECONDS
            timer = asyncio.get_running_loop().call_later(min(max(seconds, 0), LONGEST_WAIT_SECONDS), self._woken.set)
            await self._woken.wait()
            timer.cancel()

    async def look(self) -> int | None:
        """Make what is due, and return the Unix ms at which to look again; None when no schedule comes up.

        Raises:
            StoreError: the store cannot be read or written.
        """
        rows = await self._store.schedules()
        declared = {
            (workflow.metadata.uid, schedule.name): (workflow, schedule)
            for workflow in self._resources.workflows.values()
            for schedule in schedules_of(workflow)
        }
        for key in rows.keys() - declared.keys():
            self._store.put_schedule(key, None)
        upcoming = [
            await self._decide(workflow, schedule, rows.get(key)) for key, (workflow, schedule) in declared.items()
        ]
        await self._store.durable()
        return min((at_ms for at_ms in upcoming if at_ms is not None), default=None)

    async def _decide(self, workflow: Workflow, schedule: Schedule, row: ScheduleRow | None) -> int | None:
        """Make the last due run of one schedule, if it was not decided before; return when to look again."""
        now_ms = self._clock()
        zone, definition = zone_of(schedule), f"{schedule.cron} {zone_of(schedule)}"
        key = (workflow.metadata.uid, schedule.name)
        if row is None or row.definition != definition:  # it begins now, whenever it would have been due before
            self._store.put_schedule(key, ScheduleRow(definition, now_ms))
        elif is_ready(workflow):
            due_ms = last_due_ms(schedule.cron, zone, after_ms=row.decided_at, until_ms=now_ms)
            if due_ms is not None:
                missed = now_ms - due_ms > LATE_MS
                if not (missed and schedule.when_missed == "Skip") and not await self._make(workflow, schedule, due_ms):
                    return now_ms + RETRY_MS
                self._store.put_schedule(key, ScheduleRow(definition, due_ms))
                self._on_made(workflow.metadata.name)
        return next_due_ms(schedule.cron, zone, after_ms=now_ms)

    async def _make(self, workflow: Workflow, schedule: Schedule, due_ms: int) -> bool:
        run = scheduled_run(workflow, schedule, due_ms)
        name = run["metadata"]["name"]
        try:
            made = await self._cluster.create_run(run)
        except KubeError as error:
            _log.warning("the scheduled run %s of Workflow %s is not made yet: %s", name, workflow.metadata.name, error)
            return False
        labels = made["metadata"].get("labels") or {}
        if labels.get(SCHEDULE_LABEL) == schedule.name and made["spec"]["workflow"] == workflow.metadata.name:
            return True
        said = f"schedule {schedule.name}: the run of {timestamp(due_ms)} is not made: somebody else made a run {name}"
        _log.warning("Workflow %s, %s", workflow.metadata.name, said)
        self._on_taken(workflow, f"{said}; delete that one before the schedule's next time")
        return False


def schedules_of(workflow: Workflow) -> list[Schedule]:
    """Return the schedules of a Workflow."""
    return (workflow.spec.triggers.schedules or []) if workflow.spec.triggers else []


def zone_of(schedule: Schedule) -> str:
    """Return the time zone that a schedule's fields are in."""
    return schedule.time_zone or "Etc/UTC"


def next_schedule_ms(workflow: Workflow, *, now_ms: int) -> int | None:
    """Return the Unix ms of the next run that a schedule will make; None while the Workflow is not Ready."""
    if not is_ready(workflow):
        return None
    found = (next_due_ms(one.cron, zone_of(one), after_ms=now_ms) for one in schedules_of(workflow))
    return min((at_ms for at_ms in found if at_ms is not None), default=None)


def scheduled_run(workflow: Workflow, schedule: Schedule, due_ms: int) -> dict[str, Any]:
    """Return the WorkflowRun of a due time. It has generateName beside its name: nobody named it (see retention)."""
    name = workflow.metadata.name
    spec: dict[str, Any] = {"workflow": name}
    if schedule.input is not None:
        spec["input"] = schedule.input
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkflowRun",
        "metadata": {
            "name": _name(workflow, schedule.name, due_ms),
            "generateName": f"{name}-",
            "namespace": workflow.metadata.namespace,
            "labels": {SCHEDULE_LABEL: schedule.name},
            "annotations": {SCHEDULED_AT: timestamp(due_ms)},
        },
        "spec": spec,
    }


def scheduled_ms(run: WorkflowRun, workflow: Workflow) -> int | None:
    """Return the Unix ms that a run was made for; None for a run that no schedule made.

    Labels and annotations are anybody's; the name tells whether they are as they were made.
    """
    labels: Mapping[str, str] = run.metadata.labels
    try:
        due_ms = int(datetime.fromisoformat(run.metadata.annotations[SCHEDULED_AT]).timestamp() * 1000)
    except (KeyError, ValueError):
        return None
    return due_ms if run.metadata.name == _name(workflow, labels.get(SCHEDULE_LABEL, ""), due_ms) else None


def _name(workflow: Workflow, schedule: str, due_ms: int) -> str:
    hashed = hashlib.sha256(f"{workflow.metadata.uid}/{schedule}/{due_ms}".encode()).hexdigest()
    return f"{workflow.metadata.name}-{hashed[:10]}"
