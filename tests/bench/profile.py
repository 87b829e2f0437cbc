"""Where the time of a call step goes: `python -m tests.bench.profile` prints what the event loop is busy with.

Not a part of `make bench`: a profiler slows everything down, so that only proportions count.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import tempfile
from pathlib import Path

from tests.bench import workloads
from tests.bench.engines import NOWHERE, InstantTools, serving

STEPS = 500
LINES = 40


async def main() -> None:
    """Profile one run of many call steps that are answered at once."""
    objects = [workloads.loop("w", STEPS), workloads.tool({"url": NOWHERE}), workloads.policy()]
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), objects, tools=InstantTools()) as bench:
            await bench.run("w")
            with cProfile.Profile() as profile:
                await bench.run("w")
    for order in ("cumulative", "tottime"):
        pstats.Stats(profile).sort_stats(order).print_stats("fairlead", LINES)


if __name__ == "__main__":
    asyncio.run(main())
