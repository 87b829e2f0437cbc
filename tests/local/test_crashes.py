"""Killed with SIGKILL at the worst moment and run again under the same name: it goes on, and repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.local.conftest import Cli, ledger_calls, ledger_policy, ledger_tool
from tests.servers import ledger
from tests.servers.serving import get, served

GRANTED = ("steady.append", "steady.append_keyed", "moody.read", "moody.append", "moody.append_keyed")


@dataclass(frozen=True, slots=True)
class Witness:
    """A ledger: what it was asked, and what it did."""

    url: str

    async def answers_again(self) -> None:
        """Let it answer normally from now on."""
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.put(f"{self.url}/mode", json={"mode": "normal"})).raise_for_status()

    async def holds_a_call(self) -> None:
        """Return when a call is held without an answer."""
        while not (await get(f"{self.url}/mode"))["held"]:
            await asyncio.sleep(0.02)

    async def effects(self) -> list[str]:
        """Return the keys of all effects, oldest first."""
        return [entry["key"] for entry in (await get(f"{self.url}/ledger"))["entries"]]

    async def calls(self) -> list[str]:
        """Return the keys of all calls that were carried out, oldest first."""
        return [entry["arguments"]["key"] for entry in (await get(f"{self.url}/calls"))["entries"]]


@asynccontextmanager
async def ledgers(folder: Path, mood: ledger.Mode) -> AsyncIterator[tuple[Witness, Witness]]:
    """Serve two ledgers: one that answers, and one that hangs or swallows until it is told otherwise."""
    steady, moody = (folder / "steady.jsonl", folder / "moody.jsonl")
    async with served(ledger.create_app(steady)) as one, served(ledger.create_app(moody, mode=mood)) as other:
        yield Witness(one), Witness(other)


def written(
    cli: Cli, steady: Witness, moody: Witness, *functions: str, granted: tuple[str, ...] = GRANTED
) -> list[str]:
    """Write everything that a run of these calls needs, and return the command."""
    tools = [ledger_tool("steady"), ledger_tool("moody")]
    cli.write("files.yaml", ledger_calls(*functions), *tools, ledger_policy(*granted))
    urls = {"steady": {"url": f"{steady.url}/mcp"}, "moody": {"url": f"{moody.url}/mcp"}}
    cli.write("with.yaml", {"tools": urls})
    return ["run", "files.yaml", "--with", "with.yaml", "--run", "r", "-o", "json"]


async def killed(cli: Cli, moody: Witness, command: list[str]) -> None:
    """Start the run, kill its process while a call is held, and let the server answer again."""
    process = await cli.start(*command)
    try:
        await asyncio.wait_for(moody.holds_a_call(), timeout=120)
    finally:
        process.kill()
        await process.communicate()
    await moody.answers_again()


@pytest.mark.requirement("G1")
@pytest.mark.requirement("G2")
@pytest.mark.parametrize(
    ("mood", "second", "carried_out"),
    [("hang", "moody.read", 1), ("swallow", "moody.read", 2), ("swallow", "moody.append_keyed", 2)],
    ids=["a read that never arrived", "a read whose answer was lost", "a keyed effect whose answer was lost"],
)
async def test_a_killed_run_goes_on_with_the_call_that_may_be_repeated(
    cli: Cli, mood: ledger.Mode, second: str, carried_out: int
) -> None:
    async with ledgers(cli.folder, mood) as (steady, moody):
        command = written(cli, steady, moody, "steady.append", second, "steady.append")
        await killed(cli, moody, command)
        said = await cli.run(*command)
        assert said.code == 0, said.err
        assert "goes on" in said.err
        assert await steady.calls() == ["k1", "k3"]
        assert await moody.calls() == ["k2"] * carried_out
        assert await moody.effects() == (["k2"] if second == "moody.append_keyed" else [])


@pytest.mark.requirement("G3")
async def test_a_killed_effect_without_a_key_is_not_repeated_but_unknown(cli: Cli) -> None:
    async with ledgers(cli.folder, "swallow") as (steady, moody):
        command = written(cli, steady, moody, "steady.append", "moody.append", "steady.append")
        await killed(cli, moody, command)
        said = await cli.run(*command)
        assert (said.code, said.json()["reason"]) == (1, "OutcomeUnknown")
        assert (await steady.effects(), await moody.effects()) == (["k1"], ["k2"])


@pytest.mark.requirement("G6")
async def test_a_grant_that_was_revoked_while_the_run_was_down_stops_its_next_call(cli: Cli) -> None:
    async with ledgers(cli.folder, "hang") as (steady, moody):
        functions = ("steady.append", "moody.read", "steady.append_keyed")
        command = written(cli, steady, moody, *functions)
        await killed(cli, moody, command)
        written(cli, steady, moody, *functions, granted=("steady.append", "moody.read"))
        said = await cli.run(*command)
        assert (said.code, said.json()["reason"]) == (4, "Denied")
        assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/steady.append_keyed" in said.json()["message"]
        assert await steady.effects() == ["k1"]


@pytest.mark.requirement("G4")
async def test_a_run_that_has_ended_prints_its_result_again_and_executes_nothing(cli: Cli) -> None:
    async with ledgers(cli.folder, "normal") as (steady, moody):
        command = written(cli, steady, moody, "steady.append")
        first = await cli.run(*command)
        again = await cli.run(*command)
        assert (first.code, again.code) == (0, 0), first.err
        assert first.json() == again.json()
        assert again.json()["output"]["key"] == "k1"
        assert await steady.calls() == ["k1"]


@pytest.mark.requirement("G5")
async def test_two_processes_never_execute_the_same_run(cli: Cli) -> None:
    async with ledgers(cli.folder, "hang") as (steady, moody):
        command = written(cli, steady, moody, "moody.append")
        process = await cli.start(*command)
        try:
            await asyncio.wait_for(moody.holds_a_call(), timeout=120)
            second = await cli.run(*command)
        finally:
            process.kill()
            await process.communicate()
        assert second.code == 3
        assert "another process" in second.err
        assert await moody.calls() == []
