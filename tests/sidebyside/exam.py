"""The crash exam: a contestant is killed at random moments while chains of effects run, and a ledger counts.

A chain calls a function that has an effect: `append` has it each time it is called, as most functions in the world do;
`append_keyed` has it once for each idempotency key. Afterwards every run must have ended, and the ledger says what
happened: an effect is *repeated* when it is there twice, and *lost* when a run said `Completed` without it. A run that
says it does not know is neither.

A kill comes after a random number of effects, not of seconds: so every contestant dies equally often in its work,
however fast it is and however long it takes to come back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.sidebyside.contestants.talk import Chain
from tests.sidebyside.process import Entrant, started

STEPS = 20
AT_ONCE = 8
MOST_EFFECTS = 3 * STEPS
"""A kill comes after so many at most."""
LONGEST_SECONDS = 20.0
"""And after so many seconds at the latest, if there are no more effects."""
MOST_KILLS_PER_RUN = 2
"""A contestant that needs more is let go; what it has not ended by then counts as not ended."""
_PAUSE_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Marks:
    """What came of an exam."""

    runs: int
    kills: int
    completed: int
    unknown: int
    other: int
    open: int
    repeated: int
    lost: int

    def as_data(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


async def examine(
    entrant: Entrant,
    folder: Path,
    server: str,
    ledger: Path,
    *,
    function: str,
    runs: int,
    chance: random.Random,
    say: Callable[[str], None],
) -> Marks:
    """Execute `runs` chains, killing the contestant until all have ended.

    Args:
        entrant: who is examined.
        folder: where it keeps what must survive.
        server: the ledger's URL.
        ledger: its file.
        function: what the chains call.
        runs: how many.
        chance: when kills come.
        say: told how it goes.
    """
    waiting = [Chain(f"{entrant.package}-{number}", STEPS, function) for number in range(runs)]
    waiting.reverse()
    open_runs: dict[str, Chain] = {}
    ends: dict[str, str] = {}
    kills = 0
    while (waiting or open_runs) and kills < MOST_KILLS_PER_RUN * runs:
        async with started(entrant, folder, f"{server}/mcp", left=open_runs.values()) as running:
            futures = {name: running.submit(chain) for name, chain in open_runs.items()}
            last = _count(ledger) + chance.randint(0, MOST_EFFECTS)
            gives_up = time.monotonic() + LONGEST_SECONDS
            while (waiting or open_runs) and _count(ledger) < last and time.monotonic() < gives_up:
                while waiting and len(open_runs) < AT_ONCE:
                    chain = waiting.pop()
                    open_runs[chain.run] = chain
                    futures[chain.run] = running.submit(chain)
                if not futures:
                    break  # it has died by itself
                await asyncio.wait(futures.values(), timeout=_PAUSE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                _collect(futures, open_runs, ends)
            running.kill()
            kills += 1
        _collect(futures, open_runs, ends)
        if kills % 10 == 0:
            say(f"{entrant.name}: {kills} kills, {len(ends)} of {runs} runs ended")
    return _marks(runs, ends, kills, await _effects(server))


def _collect(futures: dict[str, Any], open_runs: dict[str, Chain], ends: dict[str, str]) -> None:
    for name in [name for name, future in futures.items() if future.done()]:
        future = futures.pop(name)
        if not future.cancelled():
            ends[name] = future.result()[0]
            del open_runs[name]


def _count(ledger: Path) -> int:
    """Return how many effects there are; each is a line."""
    return ledger.read_bytes().count(b"\n") if ledger.exists() else 0


async def _effects(server: str) -> Counter[str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        found = (await client.get(f"{server}/ledger")).raise_for_status().json()
    return Counter(entry["key"] for entry in found["entries"])


def _marks(runs: int, ends: dict[str, str], kills: int, effects: Counter[str]) -> Marks:
    how = Counter(ends.values())
    completed = [name for name, ended in ends.items() if ended == "Completed"]
    return Marks(
        runs=runs,
        kills=kills,
        completed=len(completed),
        unknown=how["OutcomeUnknown"],
        other=len(ends) - len(completed) - how["OutcomeUnknown"],
        open=runs - len(ends),
        repeated=sum(count > 1 for count in effects.values()),
        lost=sum(not effects[f"{name}-s{step}"] for name in completed for step in range(STEPS)),
    )
