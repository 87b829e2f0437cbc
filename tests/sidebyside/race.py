"""How long a chain of trivial calls takes, and how many calls a second fit: the same calls for every contestant."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path

import httpx
from tests.bench.figures import Repetition, percentiles_ms, value
from tests.sidebyside.contestants.talk import Chain, request
from tests.sidebyside.process import Entrant, Running, started

SHORT, LONG = (3, 60), (20, 20)
"""Steps of a chain, and how many of them one after the other."""
AT_ONCE, RUNS, STEPS = 32, 96, 10

_numbers = itertools.count()


async def race(entrant: Entrant, folder: Path, url: str) -> Repetition:
    """Measure a contestant on a new store."""
    async with started(entrant, folder, url) as running:
        await running.run(_chain(entrant, 3))
        found: dict[str, dict[str, float]] = {}
        for key, (steps, runs) in (("three", SHORT), ("twenty", LONG)):
            found[key] = dict(percentiles_ms([await running.run(_chain(entrant, steps)) for _ in range(runs)]))
        found["per_second"] = dict(value(await _throughput(entrant, running)))
    return found


async def bare(url: str) -> Repetition:
    """Measure the calls alone, by a client that remembers nothing."""
    found = {}
    async with httpx.AsyncClient(trust_env=False) as client:
        for key, (steps, runs) in (("three", SHORT), ("twenty", LONG)):
            seconds = []
            for _ in range(runs):
                began = time.perf_counter()
                for number in range(steps):
                    (await client.post(url, json=request(number, "read", "k"))).raise_for_status()
                seconds.append(time.perf_counter() - began)
            found[key] = percentiles_ms(seconds)
    return found


async def _throughput(entrant: Entrant, running: Running) -> float:
    left = iter(range(RUNS))

    async def one_after_the_other() -> None:
        for _ in left:
            await running.run(_chain(entrant, STEPS))

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return RUNS * STEPS / (time.perf_counter() - began)


def _chain(entrant: Entrant, steps: int) -> Chain:
    return Chain(f"{entrant.package}-{next(_numbers)}", steps, "read")
