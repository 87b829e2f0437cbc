"""What the machine itself can do, measured beside everything else: one synchronised append, one bare HTTP call.

The machine is shared, so that absolute times say as much about the neighbours as about us. Ratios to these say more.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from tests.bench.figures import Statistics, percentiles_ms

APPENDS = 200
BYTES = 4096


def synchronised_appends(folder: Path) -> Statistics:
    """Append 4 KiB and fsync, many times, on the file system of `folder`."""
    path, block = folder / "baseline", os.urandom(BYTES)
    seconds: list[float] = []
    with path.open("ab", buffering=0) as file:
        for _ in range(APPENDS):
            began = time.perf_counter()
            file.write(block)
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - began)
    path.unlink()
    return percentiles_ms(seconds)


async def bare_calls(url: str, body: Mapping[str, Any], *, calls: int, per_second: float) -> list[float]:
    """POST at a fixed pace, whether answers come or not, and return the seconds from when each was due."""
    async with aiohttp.ClientSession() as client:
        await _post(client, url, body)  # the connection

        async def one(due: float) -> float:
            await _post(client, url, body)
            return asyncio.get_running_loop().time() - due

        return await paced(one, calls=calls, per_second=per_second)


async def paced(one: Any, *, calls: int, per_second: float) -> list[float]:
    """Start `one(due)` at a fixed pace without waiting for the one before; return what they return."""
    loop = asyncio.get_running_loop()
    began = loop.time() + 0.05
    tasks = []
    for number in range(calls):
        due = began + number / per_second
        await asyncio.sleep(max(0.0, due - loop.time()))
        tasks.append(asyncio.create_task(one(due)))
    return list(await asyncio.gather(*tasks))


async def _post(client: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> None:
    async with client.post(url, json=dict(body), raise_for_status=True) as answer:
        await answer.read()
