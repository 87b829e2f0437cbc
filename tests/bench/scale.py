"""Large numbers without a cluster: one long forEach, many queued runs, many open runs that a restart finds again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.bench import workloads
from tests.bench.engines import NOWHERE, InstantTools, serving
from tests.bench.figures import Repetition, Title, value
from tests.bench.process import resident_bytes

from fairlead.engine.roster import Standing
from fairlead.flow.journal import RunUid

FEW_ITEMS, MANY_ITEMS = 1_000, 10_000
QUEUED = 5_000
OPEN = 1_000
MIB = 2**20

TITLES = {
    "local.foreach.few": Title(f"one forEach of {FEW_ITEMS:,} calls, for each", "ms"),
    "local.foreach.many": Title(f"one forEach of {MANY_ITEMS:,} calls, for each", "ms", "linear"),
    "local.foreach.memory": Title(f"process memory (RSS) after a forEach of {MANY_ITEMS:,}", "MiB"),
    "local.queued": Title(f"{QUEUED:,} runs of three calls submitted at once, until the last has ended", "s", "240 s"),
    "local.queued.memory": Title("process memory (RSS) after that", "MiB", "300 MiB"),
    "local.resumed": Title(f"{OPEN:,} waiting runs found again by a restart, until the engine serves", "s", "10 s"),
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
    """Let many runs wait, end the engine, and start it again."""
    store = folder / "journal.sqlite"
    declared = _declared(workloads.waiting("w"))
    async with serving(folder, declared, store=store) as bench:
        runs = {RunUid(run["metadata"]["uid"]): run for run in (bench.made("w") for _ in range(OPEN))}
        for run in runs.values():
            bench.engine.submit(run)
        while any(run.standing is not Standing.PARKED for run in bench.engine.runs.roster.all()):
            await asyncio.sleep(0.05)
    began = time.perf_counter()
    async with serving(folder, declared, store=store, left=runs) as bench:
        seconds = time.perf_counter() - began
        assert len(bench.engine.runs.roster.all()) == OPEN
    return {"local.resumed": value(seconds)}


PARTS: Sequence[Callable[[Path], Awaitable[Repetition]]] = (for_each, queued, resumed)


def _declared(*workflows: workloads.Manifest) -> list[workloads.Manifest]:
    return [*workflows, workloads.tool({"url": NOWHERE}), workloads.policy()]
