"""The agent example in local mode: what a model asks for passes the gate like everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tests.local.conftest import MODELS, ROOT, SERVERS, Cli, ours

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


@pytest.mark.models
@pytest.mark.timeout(900)
async def test_a_real_model_without_tool_calls_holds_the_loop_in_constrained_json(cli: Cli) -> None:
    if not (MODELS / "weights").exists():
        pytest.skip("the weights are not in the cache: python -m images models")
    text = {"type": "string", "minLength": 20, "maxLength": 400}
    answer = {"type": "object", "additionalProperties": False, "required": ["text"], "properties": {"text": text}}
    agent = {
        "model": "assistant",
        "instructions": "You are a support agent. Search the handbook first, then answer in one sentence.",
        "prompt": "My calendar stopped syncing. What should I do?",
        "tools": [{"tool": "handbook", "functions": ["search"]}],
        "maxTurns": 2,  # the second may only be the answer
        "parameters": {"temperature": "0", "seed": 7},
        "output": {"schema": answer, "revisions": 1},
    }
    endpoint = {"api": "OpenAIChat", "url": "https://api.example.com/v1", "model": "smollm2"}
    limits = {"maxOutputTokens": 200, "timeoutSeconds": 600}
    grants = {
        "serviceAccounts": ["w"],
        "models": ["assistant"],
        "tools": [{"tool": "handbook", "functions": ["search"]}],
    }
    handbook = yaml.safe_load((EXAMPLE / "handbook.yaml").read_text(encoding="utf-8"))
    resources = cli.write(
        "agent.yaml",
        ours("Model", "assistant", endpoint=endpoint, capabilities=["StructuredOutput"], limits=limits),
        ours("Policy", "p", grants=grants),
        ours("Workflow", "w", serviceAccountName="w", steps=[{"name": "a", "timeoutSeconds": 800, "agent": agent}]),
        handbook,
    )
    weights = MODELS / "weights/SmolLM2-135M-Instruct.Q4_1.gguf"
    python = str(MODELS / "venv/bin/python")
    model = {"command": [python, str(SERVERS / "chat.py"), f"--model={weights}", "--port=${PORT}"], "ready": "/health"}
    tool = {"command": [python, str(SERVERS / "handbook.py"), "--data=${STORE}/tickets", "--port=${PORT}"]}
    servers = cli.write("with.yaml", {"models": {"assistant": model}, "tools": {"handbook": tool}})
    said = await cli.run("run", resources, "--with", servers, "-o", "json")
    assert said.code == 0, said.err
    usage = said.json()["usage"]
    assert usage["toolCalls"] >= 1, "it answered without a look at the handbook"
    assert 2 <= usage["modelCalls"] <= 3
    assert 20 <= len(said.json()["output"]["text"]) <= 400
