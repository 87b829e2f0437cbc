"""An engine in a process of its own, for tests that kill it: `python -m tests.unit.engine.killable DIRECTORY RUNS`.

With a replica's name as well it keeps its journal in the database of $DATABASE_URL, and `owners` has a line for each
replica that came to own it.

Beside the store it keeps two files, one line at a time: `ledger` is what the world outside saw of each call (written
by the fake tool), `acknowledged` is every step result that the engine has told to somebody.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from tests.unit.engine.fakes import FakeAuthorizer, FakeGate, FakeResources, FakeSink, tool_step, workflow

from fairlead.cli.localapprovals import LocalDesk
from fairlead.engine.clock import SteadyClock
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.store import Place
from fairlead.engine.store.postgres import Address, Postgres
from fairlead.flow.calls import Call
from fairlead.flow.journal import EntryKind, RunUid

STEPS = ("read", "send", "put", "send", "read", "send")


def uid(number: int) -> RunUid:
    return RunUid(f"0f0e0d0c-0b0a-4908-8706-{number:012d}")


def run_object(number: int) -> dict[str, Any]:
    metadata = {"name": f"run-{number}", "namespace": "team", "uid": uid(number), "generation": 1}
    return {"metadata": metadata, "spec": {"workflow": "w"}}


def flow() -> Any:
    return workflow(*(tool_step(f"s{number}", function) for number, function in enumerate(STEPS)))


class Ledger:
    """Append-only lines that survive a kill."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


class LedgerGate(FakeGate):
    """Writes each dispatch into the ledger, with the run that it belongs to."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(self._slowly)
        self._ledger = ledger

    async def call(self, log: Any, call: Call) -> None:
        gate = FakeGate(lambda asked: self._dispatch(log.uid, asked))
        await gate.call(log, call)

    async def _dispatch(self, run_uid: str, call: Call) -> dict[str, Any]:
        self._ledger.write(run_uid, call.id.path, call.function)
        return await self._slowly(call)

    async def _slowly(self, call: Call) -> dict[str, Any]:
        await asyncio.sleep(random.uniform(0.0, 0.01))
        return {"result": {"token": random.getrandbits(60)}}


def place(directory: Path, replica: str) -> Place:
    if not replica:
        return directory / "journal.db"
    backend = Postgres(Address(lambda: os.environ["DATABASE_URL"], replica, "team"), lease_seconds=1.0)
    backend.renew_seconds, backend.retry_seconds = 0.2, 0.05
    return backend


async def main(directory: Path, runs: int, replica: str = "") -> None:
    acknowledged = Ledger(directory / "acknowledged")
    gate = LedgerGate(Ledger(directory / "ledger"))
    engine = await WorkflowEngine.open(
        place(directory, replica),
        resources=FakeResources(flow()),
        authorizer=FakeAuthorizer(),
        sink=FakeSink(),
        gate=lambda clock, metrics: gate,
        clock=SteadyClock(),
        desk=LocalDesk(),
    )

    def committed(entries: Any) -> None:
        for entry in entries:
            if entry.kind is EntryKind.STEP_SUCCEEDED:
                acknowledged.write(entry.run_uid, entry.path, entry.data["output"]["token"])

    Ledger(directory / "owners").write(replica)
    engine.subscribe(committed)
    objects = {uid(number): run_object(number) for number in range(runs)}
    await engine.recover(objects)
    stop = asyncio.Event()
    serving = asyncio.create_task(engine.serve(stop))
    ended = {row.uid for row in await engine.store.runs() if not row.open}
    ends = [engine.submit(raw) for run_uid, raw in objects.items() if run_uid not in ended]
    await asyncio.gather(*ends)
    stop.set()
    await serving


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
