"""Large numbers without a cluster: one long forEach, many queued runs, many open runs that a restart finds again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.bench import workloads
from tests.bench.engines import NOWHERE, Bench, InstantTools, serving
from tests.bench.figures import Repetition, Title, value
from tests.bench.process import resident_bytes

from fairlead.engine.roster import Standing
from fairlead.engine.runs import PLACES
from fairlead.flow.journal import RunUid

FEW_ITEMS, MANY_ITEMS = 1_000, 10_000
QUEUED = 5_000
OPEN = 1_000
UNDER_WAY = PLACES // 2
"""As many runs of a Workflow as are at work at once."""
LONGEST_SECONDS = 300
MIB = 2**20

TITLES = {
    "local.foreach.few": Title(f"one forEach of {FEW_ITEMS:,} calls, for each", "ms"),
    "local.foreach.many": Title(f"one forEach of {MANY_ITEMS:,} calls, for each", "ms", "linear"),
    "local.foreach.memory": Title(f"process memory (RSS) after a forEach of {MANY_ITEMS:,}", "MiB"),
    "local.queued": Title(f"{QUEUED:,} runs of three calls submitted at once, until the last has ended", "s", "240 s"),
    "local.queued.memory": Title("process memory (RSS) after that", "MiB", "300 MiB"),
    "local.resumed": Title(f"{OPEN:,} runs that wait for a signal, from a restart until they wait again", "s", "10 s"),
    "local.resumed.parents": Title(f"{OPEN // 2:,} runs that wait for a child, and their children", "s", "10 s"),
    "local.resumed.approvals": Title(f"{OPEN:,} runs that wait for people", "s", "10 s"),
    "local.resumed.calls": Title(f"{UNDER_WAY:,} runs with a call under way, until all are called again", "s", "10 s"),
}


async def for_each(folder: Path) -> Repetition:
    """Run a short and a long forEach."""
    found = {}
    flows = [workloads.for_each("few", FEW_ITEMS), workloads.for_each("many", MANY_ITEMS)]
    async with serving(folder, _declared(*flows), tools=InstantTools()) as bench:
        for name, items in (("few", FEW_ITEMS), ("many", MANY_ITEMS)):
            began = time.perf_counter()
            await bench.run(name)
            found[f"local.foreach.{name}"] = value((time.perf_counter() - began) / items * 1000)
        found["local.foreach.memory"] = value(resident_bytes() / MIB)
    return found


async def queued(folder: Path) -> Repetition:
    """Submit many runs at once."""
    async with serving(folder, _declared(workloads.chain("w", 3)), tools=InstantTools()) as bench:
        began = time.perf_counter()
        await bench.many("w", runs=QUEUED, at_once=QUEUED)
        return {
            "local.queued": value(time.perf_counter() - began),
            "local.queued.memory": value(resident_bytes() / MIB),
        }


async def resumed(folder: Path) -> Repetition:
    """Leave many runs that wait for something, and see when an engine that starts again has them where they were."""
    waits = [workloads.waiting("signal")]
    parents = [workloads.parent("parent", "signal"), *waits]
    return {
        "local.resumed": value(await _resumed(folder, OPEN, waits)),
        "local.resumed.parents": value(await _resumed(folder, OPEN // 2, parents)),
        "local.resumed.approvals": value(await _resumed(folder, OPEN, [workloads.approval("people")])),
        "local.resumed.calls": value(await _resumed(folder, UNDER_WAY, [workloads.chain("call", 1)], calls=UNDER_WAY)),
    }


async def _resumed(folder: Path, runs: int, flows: Sequence[workloads.Manifest], *, calls: int = 0) -> float:
    """Return after how many seconds runs of the first Workflow stand again where they stood when the engine died.

    Args:
        folder: where the store is.
        runs: how many.
        flows: the Workflow, and what its runs start.
        calls: how many calls are under way then; all runs that have none wait as rows.
    """
    names = [flow["metadata"]["name"] for flow in flows]
    declared = [*flows, workloads.tool({"url": NOWHERE}), workloads.policy(*names)]
    store = folder / f"{names[0]}.sqlite"

    async def as_before(bench: Bench, tools: InstantTools, standing: int) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            while [run.standing for run in bench.engine.runs.roster.all()].count(Standing.PARKED) < standing - calls:
                await asyncio.sleep(0.01)
            while len(tools.called_at) < calls:
                await asyncio.sleep(0.01)

    tools = InstantTools(seconds=3600)
    async with serving(folder, declared, tools=tools, store=store, killed=True) as bench:
        left = {RunUid(run["metadata"]["uid"]): run for run in (bench.made(names[0]) for _ in range(runs))}
        for run in left.values():
            bench.engine.submit(run)
        await as_before(bench, tools, runs * len(flows))
        left |= bench.children
    began, tools = time.perf_counter(), InstantTools(seconds=3600)
    async with serving(folder, declared, tools=tools, store=store, left=left, killed=True) as bench:
        await as_before(bench, tools, len(left))
        seconds = time.perf_counter() - began
        assert len(bench.engine.runs.roster.all()) == len(left) == runs * len(flows)
    return seconds


PARTS: Sequence[Callable[[Path], Awaitable[Repetition]]] = (for_each, queued, resumed)


def _declared(*workflows: workloads.Manifest) -> list[workloads.Manifest]:
    return [*workflows, workloads.tool({"url": NOWHERE}), workloads.policy()]
