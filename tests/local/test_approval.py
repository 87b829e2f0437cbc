"""The approval example in local mode: it waits, it is killed, it goes on with a word."""

from __future__ import annotations

import asyncio
import json

import pytest
from tests.local.conftest import ROOT, SERVERS, Cli

EXAMPLE = ROOT / "examples" / "approval"
ASK = ("--input", "title=App crashes", "--input", "customer=c-17", "--run", "r", "-o", "json")


@pytest.fixture
def words(cli: Cli) -> list[str]:
    handbook = {"command": ["${PYTHON}", str(SERVERS / "handbook.py"), "--data=${STORE}/tickets", "--port=${PORT}"]}
    return ["run", str(EXAMPLE), "--with", str(cli.write("with.yaml", {"tools": {"handbook": handbook}})), *ASK]


def events(cli: Cli) -> list[str]:
    file = cli.folder / ".fairlead" / "tickets" / "tickets.jsonl"
    return [json.loads(line)["event"] for line in file.read_text(encoding="utf-8").splitlines()]


async def test_a_run_waits_is_killed_and_goes_on_when_people_have_decided(cli: Cli, words: list[str]) -> None:
    process = await cli.start(*words)
    assert process.stderr is not None
    told = ""
    async with asyncio.timeout(60):
        while "--approve mistake" not in told:
            told += (await process.stderr.readline()).decode()
    process.terminate()
    await process.communicate()
    assert "Was T-1, 'App crashes', opened by mistake?" in told
    said = await cli.run(*words, "--approve", "mistake", "--approve", "remove")
    assert said.code == 0, said.err
    assert said.json()["output"] == {"ticket": "T-1", "mistake": "Approved"}
    assert events(cli) == ["created", "removed"]


async def test_what_the_policy_gives_to_people_does_not_happen_without_them(cli: Cli, words: list[str]) -> None:
    said = await cli.run(*words, "--approve", "mistake", "--deny", "remove")
    assert said.code != 0
    assert said.json()["reason"] == "Denied"
    assert "Policy withdraw-ticket, rule onCall: a ticket is removed for good" in said.json()["message"]
    assert events(cli) == ["created"]
