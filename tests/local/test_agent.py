"""The agent example in local mode: what a model asks for passes the gate like everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.local.conftest import ROOT, SERVERS, Cli

EXAMPLE = ROOT / "examples" / "agent"
ASK = ("--input", "question=My calendar stopped syncing", "--input", "customer=c-17", "--run", "r", "-o", "json")


def with_script(cli: Cli, script: dict[str, Any]) -> list[str]:
    path = cli.write("script.yaml", script)
    model = {"command": ["${PYTHON}", str(SERVERS / "scripted.py"), f"--script={path}", "--port=${PORT}"]}
    handbook = {"command": ["${PYTHON}", str(SERVERS / "handbook.py"), "--data=${STORE}/tickets", "--port=${PORT}"]}
    file = cli.write("with.yaml", {"models": {"assistant": model}, "tools": {"handbook": handbook}})
    return ["run", str(EXAMPLE), "--with", str(file), *ASK]


def events(cli: Cli) -> list[str]:
    file = cli.folder / ".fairlead" / "tickets" / "tickets.jsonl"
    return [json.loads(line)["event"] for line in file.read_text(encoding="utf-8").splitlines()]


async def test_the_agent_searches_opens_a_ticket_and_answers(cli: Cli) -> None:
    script = yaml.safe_load((EXAMPLE / "local/script.yaml").read_text(encoding="utf-8"))
    said = await cli.run(*with_script(cli, script))
    assert said.code == 0, said.err
    assert said.json()["output"]["ticket"] == "T-1"
    assert (said.json()["usage"]["modelCalls"], said.json()["usage"]["toolCalls"]) == (3, 2)
    assert events(cli) == ["created"]


@pytest.mark.requirement("A05")
async def test_a_model_that_asks_for_what_is_not_offered_is_denied_and_nothing_happens(cli: Cli) -> None:
    script = yaml.safe_load((EXAMPLE / "local/script.yaml").read_text(encoding="utf-8"))
    greedy = {"when": {"toolResults": 2}, "toolCalls": [{"name": "handbook__remove", "arguments": {"id": "T-1"}}]}
    last = {"when": {"toolResults": 3}, "content": {"text": "I was not permitted to remove it.", "ticket": "T-1"}}
    said = await cli.run(*with_script(cli, {"turns": [*script["turns"][:2], greedy, last]}))
    assert said.code == 0, said.err
    assert said.json()["denials"] == 1
    assert events(cli) == ["created"]
