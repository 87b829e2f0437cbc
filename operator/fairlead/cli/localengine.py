"""The engine of local mode: the same parts that the engine's process is made of, for one run in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from fairlead.cli.local import LocalResources, NoStatus
from fairlead.cli.localstore import clock_ms
from fairlead.engine.authorizer import GrantAuthorizer
from fairlead.engine.dialer import Dialer
from fairlead.engine.gate import Gate
from fairlead.engine.models import ModelCaller
from fairlead.engine.reporter import Reporter
from fairlead.engine.roster import Roster
from fairlead.engine.runner import Runner
from fairlead.engine.runs import Runs
from fairlead.engine.status import StatusWriter
from fairlead.engine.store import Store
from fairlead.engine.store.database import RunRow
from fairlead.engine.tools import ToolCaller
from fairlead.flow.journal import RunUid
from fairlead.flow.state import RunState
from fairlead.policy.decision import Authorization
from fairlead.telemetry.export import SpanExporter
from fairlead.telemetry.metrics import EngineMetrics

DRAIN_SECONDS = 5.0


async def execute(
    store: Store, resources: LocalResources, known: RunRow | None, *, name: str, workflow: str, value: Mapping[str, Any]
) -> RunUid:
    """Begin a run, or go on with it, and return its UID when it has ended.

    Args:
        store: the run's own store.
        resources: what is declared.
        known: the run as the store has it; None to begin it.
        name: the run's name.
        workflow: the Workflow to run.
        value: the input; one that goes on keeps the input that it was begun with.
    """
    uid = known.uid if known is not None else RunUid(str(uuid4()))
    created_ms = known.accepted_at if known is not None else clock_ms()
    obj = {
        "metadata": {
            "name": name,
            "namespace": resources.namespace,
            "uid": uid,
            "generation": 1,
            "creationTimestamp": datetime.fromtimestamp(created_ms / 1000, UTC).isoformat(),
        },
        "spec": {"workflow": workflow, "input": dict(value)},
    }
    async with _engine(store, resources) as runs:
        end: asyncio.Future[RunState] = runs.end_of(uid)
        await runs.recover({uid: obj})
        scheduler = asyncio.create_task(runs.run())
        if known is None:
            runs.observe(obj)
        try:
            await asyncio.wait([end, scheduler], return_when=asyncio.FIRST_COMPLETED)
            if scheduler.done():
                scheduler.result()
        except asyncio.CancelledError:
            await runs.drain(DRAIN_SECONDS)
            raise
        finally:
            scheduler.cancel()
            await asyncio.gather(scheduler, return_exceptions=True)
    await store.durable()
    return uid


@asynccontextmanager
async def _engine(store: Store, resources: LocalResources) -> AsyncIterator[Runs]:
    metrics, dialer = EngineMetrics(), Dialer()
    exporter = SpanExporter.from_environment(on_dropped=metrics.spans_dropped.inc)
    roster = Roster(metrics)
    statuses = StatusWriter("WorkflowRun", NoStatus(), durable=store.durable)
    reporter = Reporter(roster, statuses, exporter, metrics, store_id=store.id, clock=clock_ms)
    gate = Gate(
        resources,
        GrantAuthorizer(resources.policies),
        ModelCaller(dialer, resources),
        ToolCaller(dialer, resources),
        clock_ms,
        metrics,
    )
    store.subscribe(reporter.committed)
    try:
        yield Runs(
            store,
            resources=resources,
            runner=Runner(store, resources=resources, gate=gate, reporter=reporter, clock=clock_ms),
            authorization=lambda workflow: Authorization("Allowed"),  # the gate asks for every call; no early news
            roster=roster,
            reporter=reporter,
            clock=clock_ms,
        )
    finally:
        await dialer.close()
        await asyncio.to_thread(exporter.close)
