"""An engine in this process, put together as local mode does it, with what it calls perhaps replaced."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from tests.bench import workloads
from tests.bench.workloads import Manifest

from fairlead.api.tool import Tool
from fairlead.cli import manifests
from fairlead.cli.local import LocalResources, resources_of
from fairlead.cli.localapprovals import LocalDesk
from fairlead.cli.localengine import LocalRuns
from fairlead.cli.localstore import clock_ms
from fairlead.cli.standins import Server
from fairlead.cli.withfile import Environment, StandIn
from fairlead.engine.authorizer import GrantAuthorizer
from fairlead.engine.dialer import Dialer
from fairlead.engine.driver import Caller
from fairlead.engine.engine import EngineOptions, WorkflowEngine
from fairlead.engine.gate import Gate
from fairlead.engine.log import RunLog
from fairlead.engine.models import ModelCaller
from fairlead.engine.seams import Authorizer
from fairlead.engine.store import Place
from fairlead.engine.tools import ToolCaller
from fairlead.flow.calls import Call, Outcome
from fairlead.flow.journal import RunUid
from fairlead.flow.state import RunState
from fairlead.telemetry.metrics import EngineMetrics

NAMESPACE = "bench"
NOWHERE = "https://nowhere.example.com/mcp"
"""The address of a Tool that nobody dials."""


class InstantTools:
    """Stands in for every tool: answers at once, or after a while, and notes when it was called."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.called_at: list[float] = []
        self._seconds = seconds

    async def call(self, name: str, tool: Tool, call: Call, **_: object) -> Outcome:
        """Answer as `read` of the ledger does."""
        self.called_at.append(time.perf_counter())
        if self._seconds:
            await asyncio.sleep(self._seconds)
        return Outcome({"key": "k", "count": 0, "entry": None})


class TimedGate:
    """The real gate with a watch: how long each call took from its arrival to its recorded outcome."""

    def __init__(self, gate: Caller) -> None:
        self.seconds: list[float] = []
        self._gate = gate

    async def call(self, log: RunLog, call: Call) -> None:
        """Take a call through all stages."""
        began = time.perf_counter()
        await self._gate.call(log, call)
        self.seconds.append(time.perf_counter() - began)


class CountedStatuses:
    """Where statuses go: nowhere, but counted by run."""

    def __init__(self) -> None:
        self.writes: Counter[str] = Counter()

    async def turn(self) -> None:
        """Always."""

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Count it."""
        if kind == "WorkflowRun":
            self.writes[name] += 1


class QuietDesk(LocalDesk):
    """Where people are asked who never answer."""

    async def create_approval(self, approval: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep it, and print nothing."""
        made = {**approval, "metadata": {**approval["metadata"], "uid": str(uuid.uuid4())}}
        self._approvals[made["metadata"]["name"]] = made
        return made


@dataclass(frozen=True, slots=True)
class Commits:
    """How many commits there were, and how long they took together."""

    number: int
    seconds: float

    def __sub__(self, earlier: Commits) -> Commits:
        return Commits(self.number - earlier.number, self.seconds - earlier.seconds)

    @property
    def mean_ms(self) -> float:
        """Return how long one took."""
        return self.seconds / max(1, self.number) * 1000


@dataclass(slots=True)
class Bench:
    """An engine that serves, and what it was given."""

    engine: WorkflowEngine
    gate: TimedGate
    children: dict[RunUid, Manifest] = field(default_factory=dict)
    statuses: CountedStatuses = field(default_factory=CountedStatuses)

    async def run(self, workflow: str, name: str = "") -> RunState:
        """Execute a run to its end; the call returns when the end is durable.

        Raises:
            RuntimeError: the run did not succeed; there is nothing to measure then.
        """
        state = await self.engine.submit(self.made(workflow, name))
        if state.terminal is None or state.terminal.reason != "Completed":
            raise RuntimeError(f"the run of {workflow} did not succeed: {state.terminal}")
        return state

    def made(self, workflow: str, name: str = "") -> Manifest:
        """Return a WorkflowRun as a cluster would hold it."""
        uid = str(uuid.uuid4())
        manifest = workloads.run(workflow, name or f"run-{uid[:8]}")
        created = datetime.fromtimestamp(clock_ms() / 1000, UTC).isoformat()
        given = {"namespace": NAMESPACE, "uid": uid, "generation": 1, "creationTimestamp": created}
        return manifest | {"metadata": manifest["metadata"] | given}

    async def many(self, workflow: str, *, runs: int, at_once: int) -> None:
        """Execute many runs, so many at a time."""
        left = iter(range(runs))

        async def one_after_the_other() -> None:
            for _ in left:
                await self.run(workflow)

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))

    def commits(self) -> Commits:
        """Return the commits so far, from the engine's own histogram."""
        (histogram,) = self.engine.metrics.journal_commit_seconds.collect()
        samples = {sample.name.rpartition("_")[2]: sample.value for sample in histogram.samples}
        return Commits(int(samples["count"]), samples["sum"])


def by_grants(resources: LocalResources) -> Authorizer:
    """Return who decides about permissions in local mode: the Policies, without a cache."""
    return GrantAuthorizer(resources.policies)


@asynccontextmanager
async def serving(
    folder: Path,
    objects: Sequence[Manifest],
    *,
    tools: InstantTools | None = None,
    addresses: Mapping[Server, str] | None = None,
    sync_delay_seconds: float = 0.0,
    store: Place | None = None,
    left: Mapping[RunUid, Manifest] | None = None,
    killed: bool = False,
    authorizes: Callable[[LocalResources], Authorizer] = by_grants,
) -> AsyncIterator[Bench]:
    """Serve an engine for as long as the block lasts.

    Args:
        folder: on the file system to measure.
        objects: what is declared.
        tools: instead of the real adapter; nothing is dialled then.
        addresses: base URLs of servers on the loopback interface.
        sync_delay_seconds: added to every commit.
        store: the database file, or a backend; a new file below `folder` by default.
        left: the WorkflowRuns that the store may hold open, by UID.
        killed: end without waiting for what is under way, as a killed process does.
        authorizes: makes who decides about permissions.
    """
    resources = _declared(folder, objects, addresses or {})
    authorizer, dialer, statuses = authorizes(resources), Dialer(), CountedStatuses()
    gates, children = list[TimedGate](), LocalRuns(NAMESPACE)

    def gate(clock: Any, metrics: EngineMetrics) -> TimedGate:
        caller: Any = tools or ToolCaller(dialer, resources)
        models = ModelCaller(dialer, resources)
        gates.append(TimedGate(Gate(resources, authorizer, models, caller, clock, metrics, creator=children)))
        return gates[0]

    engine = await WorkflowEngine.open(
        store or folder / f"{uuid.uuid4()}.sqlite",
        resources=resources,
        authorizer=authorizer,
        sink=statuses,
        gate=gate,
        clock=clock_ms,
        desk=QuietDesk(),
        options=EngineOptions(sync_delay_seconds=sync_delay_seconds),
    )
    bench = Bench(engine, gates[0], statuses=statuses)

    def made(run: Manifest) -> None:
        bench.children[RunUid(run["metadata"]["uid"])] = run
        engine.runs.observe(run)

    children.observe = made
    await engine.recover(left or {})
    stop = asyncio.Event()
    served = asyncio.create_task(engine.serve(stop))
    try:
        yield bench
    finally:
        if killed:
            served.cancel()
        stop.set()
        await asyncio.gather(served, return_exceptions=killed)
        await dialer.close()


def _declared(folder: Path, objects: Sequence[Manifest], addresses: Mapping[Server, str]) -> LocalResources:
    file = folder / "manifests.yaml"
    file.write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    found = manifests.read([file])
    if found.problems:
        raise RuntimeError("\n".join(map(str, found.problems)))
    environment = Environment(servers={server: StandIn(url=url) for server, url in addresses.items()})
    resources = resources_of(found, environment, namespace=NAMESPACE)
    resources.use(addresses, environment)
    return resources


__all__ = ["NOWHERE", "Bench", "InstantTools", "TimedGate", "by_grants", "serving"]
