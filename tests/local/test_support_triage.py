"""The example in local mode, with a scripted model and the real handbook server as processes of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.local.conftest import EXAMPLE, MODELS, SERVERS, Cli

from fairlead.cli.standins import running
from fairlead.cli.withfile import read_environment

REPLY = "Please update the app, then sign out and sign in again. If a page stays blank, please try a private window."
BILLING_REPLY = "Please correct the company name under Settings > Company. We send you a corrected invoice."
TURNS = [
    {"when": {"contains": "VAT number"}, "content": {"text": BILLING_REPLY}},
    {"content": {"text": REPLY}, "usage": {"promptTokens": 60, "completionTokens": 20}},
]
STRAYED = "Unicorns regularly recommend chocolate vouchers. Everybody celebrates fantastic springtime festivals."
CUSTOMER = ("--input", "customer=c-17")


def with_scripted_models(cli: Cli, *turns: dict[str, Any]) -> list[str]:
    script = cli.write("script.yaml", {"turns": [*turns, *TURNS]})
    model = {"command": ["${PYTHON}", str(SERVERS / "scripted.py"), f"--script={script}", "--port=${PORT}"]}
    handbook = ["${PYTHON}", str(SERVERS / "handbook.py"), "--data=${STORE}/tickets", "--port=${PORT}"]
    servers = {"models": {"small": model, "embedder": model}, "tools": {"handbook": {"command": handbook}}}
    return ["run", str(EXAMPLE), "--with", str(cli.write("with.yaml", servers)), "--workflow"]


def tickets(cli: Cli) -> list[dict[str, Any]]:
    file = cli.folder / ".fairlead" / "tickets" / "tickets.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


async def test_a_technical_message_gets_a_reply_a_ticket_and_a_trace(cli: Cli) -> None:
    command = with_scripted_models(cli)
    said = await cli.run(*command, "support-triage", "--input", "message=The app crashes", *CUSTOMER, "--trace")
    assert said.code == 0, said.err
    assert REPLY in said.out and '"ticket": "T-1"' in said.out
    assert "2 model calls, 2 tool calls" in said.out
    for name in ("topic", "embeddings embedder", "handbook.search", "chat small", "handbook.create"):
        assert name in said.out
    assert all(len(line) <= 80 for line in said.out.splitlines() if "█" in line)
    assert [ticket["event"] for ticket in tickets(cli)] == ["created"]
    assert tickets(cli)[0]["token"], "the engine did not make the call idempotent"


async def test_an_invoice_is_routed_by_rule_and_files_no_ticket(cli: Cli) -> None:
    command = with_scripted_models(cli)
    message = "message=The invoice for October is wrong"
    said = await cli.run(*command, "support-triage", "--input", message, *CUSTOMER, "-o", "json")
    assert said.code == 0, said.err
    assert said.json()["output"] == {"topic": "billing", "answer": BILLING_REPLY, "ticket": None}
    assert said.json()["usage"]["modelCalls"] == 1, "a rule decides without a model"
    assert tickets(cli) == []


async def test_when_no_draft_passes_the_handbook_itself_is_quoted(cli: Cli) -> None:
    command = with_scripted_models(cli, {"content": {"text": STRAYED}})
    said = await cli.run(*command, "support-triage", "--input", "message=The app crashes", *CUSTOMER, "-o", "json")
    assert said.code == 0, said.err
    assert said.json()["output"]["answer"].startswith("Versions of the mobile app before 6.2 crash")
    assert said.json()["usage"]["modelCalls"] == 4, "embeddings and three drafts"


async def test_what_strays_from_the_facts_is_drafted_again(cli: Cli) -> None:
    turns = [{"content": {"text": "one sentence"}, "times": 1}, {"content": {"text": STRAYED}, "times": 1}]
    command = with_scripted_models(cli, *turns)
    said = await cli.run(*command, "support-triage", "--input", "message=The app crashes", *CUSTOMER, "-o", "json")
    assert said.code == 0, said.err
    assert said.json()["output"]["answer"] == REPLY
    assert said.json()["usage"]["modelCalls"] == 4, "embeddings, a revision of the form, a second draft"


@pytest.mark.requirement("A03")
async def test_a_function_that_is_not_granted_is_denied_with_the_command_that_shows_why(cli: Cli) -> None:
    command = with_scripted_models(cli)
    said = await cli.run(*command, "support-cleanup", "--input", "id=T-1", "--run", "refused")
    assert said.code == 4
    assert "Failed: Denied" in said.out
    account = "--as=system:serviceaccount:default:support-triage"
    assert f"kubectl auth can-i invoke toolfunctions.fairlead.dev/handbook.remove -n default {account}" in said.out
    assert tickets(cli) == []


async def test_a_trace_is_kept_with_the_run(cli: Cli) -> None:
    command = with_scripted_models(cli)
    await cli.run(*command, "support-triage", "--input", "message=The app crashes", *CUSTOMER, "--run", "mine")
    said = await cli.run("trace", "mine", "--local")
    assert said.code == 0
    assert said.out.startswith("support-triage ")
    assert (await cli.run("trace", "yours", "--local")).code == 5


@pytest.mark.models
@pytest.mark.timeout(900)
async def test_real_models_answer_and_route_as_a_person_would(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (MODELS / "weights").exists():
        pytest.skip("the weights are not in the cache: python -m images models")
    monkeypatch.setenv("PYTHON", str(MODELS / "venv" / "bin" / "python"))
    environment = read_environment(EXAMPLE / "local/servers.yaml", [])
    lines = (EXAMPLE / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    messages = [json.loads(line) for line in lines[:3]]  # one of each topic; the demo answers all
    async with running(environment, wanted=set(environment.servers), store=cli.folder) as urls:
        models = {name: {"url": url} for (kind, name), url in urls.items() if kind == "Model"}
        tools = {name: {"url": url} for (kind, name), url in urls.items() if kind == "Tool"}
        servers = cli.write("with.yaml", {"models": models, "tools": tools})
        outputs = [await answered(cli, servers, message) for message in messages]
    assert [output["topic"] for output in outputs] == [message["expect"] for message in messages]
    assert [output["ticket"] is not None for output in outputs] == [o["topic"] == "technical" for o in outputs]
    assert all(40 <= len(output["answer"]) <= 400 and output["answer"].endswith(".") for output in outputs)


async def answered(cli: Cli, servers: Path, message: dict[str, str]) -> dict[str, Any]:
    value = cli.write("input.yaml", {name: message[name] for name in ("message", "customer")})
    command = ("run", EXAMPLE, "--with", servers, "--workflow", "support-triage", "--input-file", value, "-o", "json")
    said = await cli.run(*command)
    assert said.code == 0, said.err
    output: dict[str, Any] = said.json()["output"]
    return output


def test_every_file_of_the_example_is_known_to_the_reader() -> None:
    text = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    assert all(path.name in text for path in EXAMPLE.iterdir() if path.name != "README.md")
    assert yaml.safe_load((EXAMPLE / "local/servers.yaml").read_text(encoding="utf-8"))["hint"]
