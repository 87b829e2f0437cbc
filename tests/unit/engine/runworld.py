"""A world for runs: a real store, scripted seams, and ways to make an engine vanish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.unit.engine.fakes import (
    FakeAuthorizer,
    FakeClock,
    FakeGate,
    FakeResources,
    FakeSink,
)

from fairlead.api.workflow import Workflow
from fairlead.cli.localapprovals import LocalDesk
from fairlead.engine.engine import EngineOptions, WorkflowEngine
from fairlead.engine.runs import RunOptions
from fairlead.flow.calls import Call
from fairlead.flow.journal import RunUid

UID = RunUid("0f0e0d0c-0b0a-4908-8706-050403020100")


def run_object(number: int = 0, *, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    uid = UID[:-4] + f"{number:04d}"
    metadata = {"name": f"run-{number}", "namespace": "team", "uid": uid, "generation": 1}
    return {"metadata": metadata, "spec": {"workflow": "w", **spec}, **({"status": status} if status else {})}


def uid_of(raw: dict[str, Any]) -> RunUid:
    return RunUid(raw["metadata"]["uid"])


class World:
    """An engine and everything around it."""

    def __init__(self, path: Path, *workflows: Workflow) -> None:
        self.path = path
        self.clock = FakeClock()
        self.resources = FakeResources(*workflows)
        self.authorizer = FakeAuthorizer()
        self.sink = FakeSink()
        self.gate: Any = FakeGate()
        self.cluster: Any = None
        self.desk: Any = LocalDesk()
        self.exporter: Any = None

    @asynccontextmanager
    async def engine(
        self, *, objects: list[dict[str, Any]] | None = None, places: int = 64, **options: Any
    ) -> AsyncIterator[WorkflowEngine]:
        engine = await WorkflowEngine.open(
            self.path,
            resources=self.resources,
            authorizer=self.authorizer,
            sink=self.sink,
            gate=lambda clock, metrics: self.gate,
            clock=self.clock,
            desk=self.desk,
            cluster=self.cluster,
            exporter=self.exporter,
            options=EngineOptions(runs=RunOptions(places=places), **options),
        )
        known = {uid_of(raw): raw for raw in objects or []}
        await engine.recover(known)
        for raw in known.values():
            engine.runs.observe(raw)
        if self.cluster is not None:
            self.cluster.on_run = engine.runs.observe
        stop = asyncio.Event()
        serving = asyncio.create_task(engine.serve(stop))
        try:
            yield engine
        finally:
            stop.set()
            await asyncio.wait_for(serving, 20)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.001)

    def conditions(self, name: str = "run-0") -> dict[str, tuple[str, str]]:
        statuses = self.sink.of(name)
        return {c["type"]: (c["status"], c["reason"]) for c in statuses[-1]["conditions"]} if statuses else {}

    def succeeded(self, name: str = "run-0") -> tuple[str, str] | None:
        return self.conditions(name).get("Succeeded")


def hanging() -> tuple[asyncio.Event, Callable[[Call], Any]]:
    begun = asyncio.Event()

    async def hang(call: Call) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    return begun, hang


@asynccontextmanager
async def killed(
    engine: WorkflowEngine, begun: asyncio.Event, *raws: dict[str, Any], open_runs: Iterable[dict[str, Any]] = ()
) -> AsyncIterator[None]:
    """Serve until a call has begun, then vanish without a word, as far as one process can play that."""
    await engine.recover({uid_of(raw): raw for raw in open_runs})
    parts = asyncio.create_task(engine._parts())
    for raw in raws:
        engine.submit(raw)
    await asyncio.wait_for(begun.wait(), 20)
    for run in engine.runs.roster.all():
        if run.log is not None:
            run.log.seal()
    parts.cancel()
    await asyncio.gather(parts, return_exceptions=True)
    await engine.store.close()
    yield


async def open_engine(world: World) -> WorkflowEngine:
    return await WorkflowEngine.open(
        world.path,
        resources=world.resources,
        authorizer=world.authorizer,
        sink=world.sink,
        gate=lambda clock, metrics: world.gate,
        clock=world.clock,
        desk=world.desk,
        cluster=world.cluster,
    )
