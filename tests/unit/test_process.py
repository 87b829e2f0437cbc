"""How a process begins and ends."""

from __future__ import annotations

import asyncio
import signal
import sys

import pytest

STARTING = """
import sys, time
from fairlead.process import run

def load():
    print("importing", flush=True)
    time.sleep(600)

sys.exit(run("engine", load))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_told_to_end_while_it_still_imports_ends_at_once(number: signal.Signals) -> None:
    # Without a handler it would die by the signal (-15) here, and as a container's first process not at all.
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTING, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"importing\n"
    process.send_signal(number)
    assert await process.wait() == 0
