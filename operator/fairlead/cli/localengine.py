"""The engine of local mode: `engine/engine.py` itself, fed from files instead of a cluster, for one run.

Child runs of that run are in the same process and store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4, uuid5

from fairlead.cli.local import LocalResources, NoStatus
from fairlead.cli.localapprovals import LocalDesk
from fairlead.cli.localstore import clock_ms, store_errors
from fairlead.engine.authorizer import GrantAuthorizer
from fairlead.engine.dialer import Dialer
from fairlead.engine.engine import EngineOptions, WorkflowEngine
from fairlead.engine.gate import Gate
from fairlead.engine.models import ModelCaller
from fairlead.engine.runs import RunOptions
from fairlead.engine.store import Store
from fairlead.engine.store.rows import RunRow
from fairlead.engine.tools import ToolCaller
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.telemetry.export import SpanExporter

AT_ONCE = RunOptions(grace_ms=0)
"""Files do not change any more: what is missing or not granted now will not come."""


class LocalRuns:
    """Makes child runs; `observe` is told of each, as a cluster would tell the engine."""

    def __init__(self, namespace: str) -> None:
        self.observe: Callable[[Mapping[str, Any]], None] = lambda run: None
        self._namespace = namespace

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the run of this name; its UID follows from the name, so that it is the same after a restart."""
        name, spec = run["metadata"]["name"], run["spec"]
        uid = uuid5(UUID(spec["parent"]["uid"]), name)
        made = _object(name, self._namespace, str(uid), created_ms=clock_ms(), spec=spec)
        self.observe(made)
        return made


@asynccontextmanager
async def opened(path: Path, resources: LocalResources, desk: LocalDesk) -> AsyncIterator[WorkflowEngine]:
    """Put an engine on the store at `path`, with the decisions of `desk`; it does nothing until `execute`.

    Raises:
        CommandFailed: another process has the store, or it cannot be opened.
    """
    dialer, exporter, children = Dialer(), SpanExporter.from_environment(), LocalRuns(resources.namespace)
    try:
        with store_errors(path):
            engine = await WorkflowEngine.open(
                path,
                resources=resources,
                authorizer=GrantAuthorizer(resources.policies),
                sink=NoStatus(),
                gate=lambda clock, metrics: Gate(
                    resources,
                    GrantAuthorizer(resources.policies),
                    ModelCaller(dialer, resources),
                    ToolCaller(dialer, resources),
                    clock,
                    metrics,
                    creator=children,
                ),
                clock=clock_ms,
                desk=desk,
                exporter=exporter,
                options=EngineOptions(runs=AT_ONCE),
            )
        children.observe = engine.runs.observe
        try:
            yield engine
        finally:
            await engine.store.close()
    finally:
        await dialer.close()
        await asyncio.to_thread(exporter.close)


async def execute(engine: WorkflowEngine, run: Mapping[str, Any], *, begin: bool) -> list[Entry]:
    """Begin a run, or go on with it, until it has ended; the store is closed then. Return the journal.

    Args:
        engine: opened on the run's own store.
        run: the WorkflowRun object, see `run_object`.
        begin: False when the store has the run already.
    """
    uid = RunUid(run["metadata"]["uid"])
    ended = engine.runs.end_of(uid)
    stop = asyncio.Event()
    await engine.recover({uid: run} | await _open_children(engine.store, uid))
    serving = asyncio.create_task(engine.serve(stop))
    try:
        if begin:
            engine.submit(run)
        either: list[asyncio.Future[Any]] = [ended, serving]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return await engine.store.load(uid) if ended.done() else []
    finally:
        stop.set()
        await serving


def all_signals(earlier: Sequence[Entry], new: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what the run was told by earlier commands, from its journal, and by this one."""
    told = [entry.data for entry in earlier if entry.kind is EntryKind.SIGNAL]
    kept = [{"name": data["name"], "data": data.get("data"), "by": data["by"]} for data in told]
    return [*kept, *({**signal, "by": getuser()} for signal in new)]


def run_object(
    known: RunRow | None,
    *,
    name: str,
    namespace: str,
    workflow: str,
    value: Mapping[str, Any],
    signals: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the WorkflowRun that a cluster would hold; one that is known keeps its UID, a new one gets a UUIDv4."""
    created_ms = known.accepted_at if known is not None else clock_ms()
    uid = known.uid if known is not None else str(uuid4())
    spec = {"workflow": workflow, "input": dict(value), "signals": [dict(signal) for signal in signals]}
    spec["requestedBy"] = getuser()
    return _object(name, namespace, uid, created_ms=created_ms, spec=spec)


def _object(name: str, namespace: str, uid: str, *, created_ms: int, spec: Mapping[str, Any]) -> dict[str, Any]:
    created = datetime.fromtimestamp(created_ms / 1000, UTC).isoformat()
    metadata = {"name": name, "namespace": namespace, "uid": uid, "generation": 1, "creationTimestamp": created}
    return {"metadata": metadata, "spec": dict(spec)}


async def _open_children(store: Store, uid: RunUid) -> dict[RunUid, Mapping[str, Any]]:
    """Return the objects of the child runs that an earlier process left, as their acceptance tells."""
    found: dict[RunUid, Mapping[str, Any]] = {}
    for row in await store.open_runs():
        if row.uid != uid:
            accepted = (await store.load(row.uid))[0].data
            spec = {key: accepted[key] for key in ("workflow", "input", "parent", "requestedBy") if key in accepted}
            found[row.uid] = _object(row.name, row.namespace, row.uid, created_ms=accepted["createdAt"], spec=spec)
    return found
