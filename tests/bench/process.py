"""An engine in a process of its own: how long it takes to start, and what it holds in memory.

    python -m tests.bench.process FOLDER WORKFLOW

It says its resident memory when it has recovered; then it reads numbers of runs from standard input, executes that many
runs of the Workflow, which is JSON, and says its memory again. `footprint` is the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import workloads
from tests.bench.workloads import Manifest

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Footprint:
    """What was seen of a process: how long its start took, on the clock and of a processor, and its memory in MiB."""

    start_seconds: float
    start_processor_seconds: float
    idle: float
    worked: float


async def footprint(folder: Path, flow: Manifest, *, runs: int) -> Footprint:
    """Start an engine, let it idle, and execute many runs of a Workflow, 32 at once."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.process",
        str(folder),
        json.dumps(flow),
        cwd=Path(__file__).resolve().parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    idle = json.loads(await process.stdout.readline())
    ready_seconds = time.perf_counter() - began
    process.stdin.write(f"{runs}\n".encode())
    worked = json.loads(await process.stdout.readline())
    process.stdin.close()
    await process.wait()
    return Footprint(ready_seconds, idle["processorSeconds"], idle["bytes"] / MIB, worked["bytes"] / MIB)


def resident_bytes() -> int:
    """Return what this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _serve(folder: Path, flow: Manifest) -> None:
    from tests.bench.engines import NOWHERE, InstantTools, serving

    objects = [flow, workloads.tool({"url": NOWHERE}), workloads.policy()]
    async with serving(folder, objects, tools=InstantTools()) as bench:
        _say()
        while line := await asyncio.to_thread(sys.stdin.readline):
            await bench.many(flow["metadata"]["name"], runs=int(line), at_once=32)
            _say()


def _say() -> None:
    print(json.dumps({"bytes": resident_bytes(), "processorSeconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), json.loads(sys.argv[2])))
