"""Stand-ins are started, waited for, and ended whatever happens."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path

import pytest
from tests.local.conftest import SERVERS, Cli, ours

from fairlead.cli.exits import CommandFailed
from fairlead.cli.standins import running
from fairlead.cli.withfile import Environment, StandIn

HANDBOOK = ["${PYTHON}", str(SERVERS / "handbook.py"), "--data=${STORE}/tickets", "--port=${PORT}"]
TOOL = ("Tool", "handbook")
FILES = (
    ours(
        "Workflow",
        "ask",
        serviceAccountName="a",
        steps=[{"name": "ask", "generate": {"model": "slow", "prompt": "hello"}}],
    ),
    ours(
        "Model",
        "slow",
        server={"api": "OpenAIChat", "model": "x", "image": "example.com/x@sha256:" + "0" * 64},
    ),
    ours("Policy", "p", grants={"serviceAccounts": ["a"], "models": ["slow"]}),
)
SLOW_MODEL = {"turns": [{"content": "late", "fault": {"delaySeconds": 600}}]}


async def listening(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def environment(folder: Path, **entry: object) -> Environment:
    return Environment({TOOL: StandIn.model_validate(entry)}, {}, folder, hint="read this")


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


@pytest.mark.parametrize("ready", [None, "/health"])
async def test_a_stand_in_answers_inside_and_is_gone_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: str | None
) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    found = environment(tmp_path, command=HANDBOOK, ready=ready)
    with pytest.raises(RuntimeError, match="in the middle"):
        async with running(found, wanted={TOOL}, store=tmp_path) as urls:
            url = urls[TOOL]
            assert url.endswith("/mcp")
            assert await listening(port_of(url))
            raise RuntimeError("in the middle")
    assert not await listening(port_of(url))
    assert "handbook listens" in (tmp_path / "logs" / "tool-handbook.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sh", "-c", "echo no weights here >&2; exit 3"], "ended with 3 before it was ready\n    no weights here"),
        (["./there-is-no-such-program"], "there-is-no-such-program"),
    ],
)
async def test_one_that_does_not_start_says_why_and_what_to_do(tmp_path: Path, command: list[str], words: str) -> None:
    with pytest.raises(CommandFailed) as failure:
        async with running(environment(tmp_path, command=command), wanted={TOOL}, store=tmp_path):
            pass
    assert words in str(failure.value)
    assert "read this" in str(failure.value)


async def test_what_the_workflow_does_not_name_is_not_started(tmp_path: Path) -> None:
    async with running(environment(tmp_path, command=["./no"]), wanted=set(), store=tmp_path) as urls:
        assert urls == {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_no_stand_in_outlives_the_command(cli: Cli, number: signal.Signals) -> None:
    if number is signal.SIGKILL and shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing: nothing ends a stand-in when its parent is killed")
    script = cli.write("script.yaml", SLOW_MODEL)
    command = ["${PYTHON}", str(SERVERS / "scripted.py"), f"--script={script}", "--port=${PORT}"]
    cli.write("files.yaml", *FILES)
    cli.write("with.yaml", {"models": {"slow": {"command": command, "port": 18391, "ready": "/health"}}})
    process = await cli.start("run", "files.yaml", "--with", "with.yaml")
    assert process.stderr is not None
    try:
        async with asyncio.timeout(120):
            while b"ask" not in await process.stderr.readline():
                pass
        assert await listening(18391)
        process.send_signal(number)
        if number is not signal.SIGKILL:
            process.send_signal(number)
        async with asyncio.timeout(60):
            await process.communicate()
            while await listening(18391):
                await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_server_that_only_a_cluster_would_run_needs_a_stand_in(cli: Cli) -> None:
    cli.write("files.yaml", *FILES)
    said = await cli.run("run", "files.yaml")
    assert said.code == 2
    assert "Model slow: on a cluster the operator runs the server; name a stand-in" in said.err


async def test_a_workflow_with_a_container_needs_a_cluster_and_says_so_at_once(cli: Cli) -> None:
    done = await cli.run("run", SERVERS.parent / "container", "--input", "text=a b")
    assert done.code == 2
    assert "count: containers run on a cluster only" in done.err


async def test_a_missing_secret_is_said_and_nothing_else_is_sent(cli: Cli) -> None:
    model = ours(
        "Model",
        "slow",
        endpoint={"api": "OpenAIChat", "url": "https://api.example.com/v1", "model": "x"},
        credential={"secretRef": {"name": "key", "key": "apiKey"}},
    )
    cli.write("files.yaml", FILES[0], model, FILES[2])
    said = await cli.run("run", "files.yaml", "-o", "json")
    assert said.code != 0
    assert "CredentialMissing" in said.json()["message"]
