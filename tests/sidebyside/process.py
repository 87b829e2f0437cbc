"""The other end of `contestants/talk.py`: a contestant's process, which may be killed and started again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sidebyside.contestants.talk import Chain

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / "build/sidebyside/venv"
TEMPORAL = ROOT / "build/sidebyside/bin/temporal"
"""Its server, which only Go builds; without it Temporal does not take part."""
CONTESTANTS = ROOT / "tests/sidebyside/contestants"
START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Entrant:
    """Who takes part.

    Attributes:
        name: as in the table.
        command: what its process is, without folder and URL.
        package: whose version is told.
    """

    name: str
    command: tuple[str, ...]
    package: str


_PYTHON = str(ENVIRONMENT / "bin/python")
FAIRLEAD = Entrant("Fairlead", (sys.executable, "-m", "tests.sidebyside.contestants.fairlead_engine"), "fairlead")
ENTRANTS = (
    FAIRLEAD,
    Entrant("DBOS", (_PYTHON, str(CONTESTANTS / "dbos_engine.py")), "dbos"),
    Entrant("LangGraph", (_PYTHON, str(CONTESTANTS / "langgraph_engine.py")), "langgraph"),
    *(
        [Entrant("Temporal", (_PYTHON, str(CONTESTANTS / "temporal_engine.py")), "temporalio")]
        if TEMPORAL.exists()
        else []
    ),
)


@dataclass(slots=True)
class Running:
    """A contestant's process that is ready.

    Attributes:
        ends: how each run ended that it told of, and when.
    """

    process: asyncio.subprocess.Process
    ends: dict[str, asyncio.Future[tuple[str, float]]] = field(default_factory=dict)

    def submit(self, chain: Chain) -> asyncio.Future[tuple[str, float]]:
        """Ask for a run; the future has its end and the time of it, and is cancelled when the process dies."""
        assert self.process.stdin is not None
        end = self.ends[chain.run] = asyncio.get_running_loop().create_future()
        self.process.stdin.write(json.dumps(chain._asdict()).encode() + b"\n")
        return end

    async def run(self, chain: Chain) -> float:
        """Execute a run and return how long it took, in seconds.

        Raises:
            RuntimeError: it did not complete; there is nothing to compare then.
        """
        began = time.perf_counter()
        ended, at = await self.submit(chain)
        if ended != "Completed":
            raise RuntimeError(f"{chain.run}: {ended}")
        return at - began

    def kill(self) -> None:
        """End it as a crash would, if it has not ended by itself."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def listen(self) -> None:
        """Take what it says until it is gone."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            self.ends[said["run"]].set_result((said["ended"], time.perf_counter()))
        for end in self.ends.values():
            end.cancel()


@asynccontextmanager
async def started(entrant: Entrant, folder: Path, url: str, *, left: Iterable[Chain] = ()) -> AsyncIterator[Running]:
    """Start a contestant on what it keeps in `folder`; it is killed on the way out.

    Raises:
        RuntimeError: it did not become ready.
    """
    log = (folder / "log").open("ab")
    process = await asyncio.create_subprocess_exec(
        *(*entrant.command, str(folder), url),
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "TEMPORAL": str(TEMPORAL), "PYTHONPATH": _path(entrant)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )
    log.close()
    assert process.stdin is not None and process.stdout is not None
    listening = None
    try:
        process.stdin.write(json.dumps([chain._asdict() for chain in left]).encode() + b"\n")
        async with asyncio.timeout(START_SECONDS):
            ready: dict[str, Any] = json.loads(await process.stdout.readline() or b"{}")
        if not ready:
            raise RuntimeError(f"{entrant.name} did not start; see {folder / 'log'}")
        running = Running(process)
        listening = asyncio.create_task(running.listen())
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        if listening is not None:
            await listening
        await process.wait()


def _path(entrant: Entrant) -> str:
    return str(ROOT) if entrant is FAIRLEAD else ""
