"""An engine in a process of its own: how long it takes to start, and what it holds in memory.

    python -m tests.bench.process FOLDER

It says `ready` and its resident memory when it has recovered; then it reads numbers of runs from standard input,
executes that many and says its memory again. `footprint` is the other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from tests.bench import workloads
from tests.bench.figures import Repetition, value

MIB = 2**20


async def footprint(folder: Path, *, runs: int) -> Repetition:
    """Start an engine, let it idle and work, and return what was seen of it."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.process",
        str(folder),
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
    return {
        "local.start": value(ready_seconds),
        "local.start_cpu": value(idle["processorSeconds"]),
        "local.memory.idle": value(idle["bytes"] / MIB),
        "local.memory.worked": value(worked["bytes"] / MIB),
    }


def resident_bytes() -> int:
    """Return what this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def _serve(folder: Path) -> None:
    from tests.bench.engines import NOWHERE, InstantTools, serving

    objects = [workloads.chain("three", 3), workloads.tool({"url": NOWHERE}), workloads.policy()]
    async with serving(folder, objects, tools=InstantTools()) as bench:
        _say()
        while line := await asyncio.to_thread(sys.stdin.readline):
            await bench.many("three", runs=int(line), at_once=32)
            _say()


def _say() -> None:
    print(json.dumps({"bytes": resident_bytes(), "processorSeconds": time.process_time()}), flush=True)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
