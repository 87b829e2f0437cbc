"""SIGKILL at any moment: nothing that was acknowledged is lost, and no effect happens twice."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.unit.engine.killable import STEPS, uid

from fairlead.engine.clock import SteadyClock
from fairlead.engine.store import Store
from fairlead.errors import StoreLocked
from fairlead.flow.journal import EntryKind

RUNS = 6
KILLS = 3


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def start(directory: Path) -> asyncio.subprocess.Process:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(path for path in sys.path if path))
    arguments = ("-m", "tests.unit.engine.killable", str(directory), str(RUNS))
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)


async def has_lines(path: Path, count: int, process: asyncio.subprocess.Process) -> None:
    while len(lines(path)) < count and process.returncode is None:
        await asyncio.sleep(0.002)


@pytest.mark.requirement("G1")
@pytest.mark.requirement("G2")
@pytest.mark.requirement("G3")
@pytest.mark.requirement("G5")
async def test_a_killed_engine_loses_nothing_and_repeats_no_effect(tmp_path: Path) -> None:
    chance, ledger = random.Random(20261123), tmp_path / "ledger"
    for _ in range(KILLS):
        process = await start(tmp_path)
        await asyncio.wait_for(has_lines(ledger, len(lines(ledger)) + chance.randint(1, 6), process), 60)
        if process.returncode is None:
            with pytest.raises(StoreLocked):
                await Store.open(tmp_path / "journal.db", clock=SteadyClock())
            process.kill()
        await process.wait()
    process = await start(tmp_path)
    assert await asyncio.wait_for(process.wait(), 60) == 0

    calls = Counter((run, path, function) for run, path, function in lines(ledger))
    repeated = {call: count for call, count in calls.items() if count > 1 and call[2] == "send"}
    assert repeated == {}
    told = {(run, path): token for run, path, token in lines(tmp_path / "acknowledged")}
    store = await Store.open(tmp_path / "journal.db", clock=SteadyClock())
    for number in range(RUNS):
        entries = await store.load(uid(number))
        results = [(entry.run_uid, entry.path) for entry in entries if entry.kind is EntryKind.STEP_SUCCEEDED]
        assert len(results) == len(set(results))
        kept = {
            (entry.run_uid, str(entry.path)): str(entry.data["output"]["token"])
            for entry in entries
            if entry.kind is EntryKind.STEP_SUCCEEDED
        }
        assert {key: token for key, token in told.items() if key[0] == uid(number)}.items() <= kept.items()
        if entries[-1].kind is EntryKind.RUN_SUCCEEDED:
            assert len(results) == len(STEPS)
        else:
            assert (entries[-1].kind, entries[-1].data["reason"]) == (EntryKind.RUN_FAILED, "OutcomeUnknown")
    await store.close()
