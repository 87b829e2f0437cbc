"""`fairlead audit` over a local run: sound as it was written, and not when somebody was at the file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fairlead.cli.audit import app, cloud_event
from fairlead.cli.exits import CommandFailed, Exit
from fairlead.engine.store import Store
from fairlead.flow.journal import Draft, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath

UID = RunUid("7f0c6c1e-0000-4000-8000-000000000001")
CALL = RunPath("a")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def write() -> None:
        store = await Store.open(tmp_path / "r.sqlite", clock=lambda: 1000)
        store.begin(UID, namespace="team", name="r", workflow="w")
        call = {"index": "0.0.0", "kind": "Tool", "target": "desk", "digest": "sha256:0", "effect": "Read"}
        store.append(
            UID,
            [
                Draft(EntryKind.RUN_ACCEPTED, data={"workflow": "w", "account": "clerk"}),
                Draft(EntryKind.CALL_INTENT, CALL, 1, call),
                Draft(EntryKind.CALL_OUTCOME, CALL, 1, {"index": "0.0.0", "status": "Succeeded", "result": "secret"}),
                Draft(EntryKind.RUN_SUCCEEDED, data={}),
            ],
        )
        await store.close()

    asyncio.run(write())
    return tmp_path


def audit(folder: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--local", f"--store={folder}"])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_a_run_as_it_was_written_is_sound(folder: Path) -> None:
    assert audit(folder, "verify", "r") == "r: 4 records, as they were written\nanchors: 1, as they were written\n"


@pytest.mark.requirement("A49")
@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM audit WHERE n > 2", "had 4 records when it was made, and these are others"),
        ("DELETE FROM audit WHERE n = 2", "record 2: record 3 stands in its place"),
        ("UPDATE audit SET n = 9 WHERE n = 2", "one is missing, was added or moved"),
        ("UPDATE audit SET record = x'00' WHERE n = 2", "record 2: it has no n, previous, run"),
    ],
)
def test_a_file_that_somebody_was_at_is_not(
    folder: Path, statement: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with sqlite3.connect(folder / "r.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    result = CliRunner().invoke(app, ["verify", "r", "--local", f"--store={folder}"])
    assert words in result.output
    assert isinstance(result.exception, CommandFailed) and result.exception.code is Exit.FAILED


def test_records_are_exported_as_they_are_or_as_cloud_events(folder: Path) -> None:
    records = [json.loads(line) for line in audit(folder, "export", "r").splitlines()]
    events = [json.loads(line) for line in audit(folder, "export", "r", "--format=cloudevents").splitlines()]
    assert [event["data"] for event in events] == records
    assert events == [cloud_event(record, "local") for record in records]
    intent = {key: value for key, value in events[1].items() if key != "data"}
    assert intent == {
        "specversion": "1.0",
        "id": f"{UID}/2",
        "source": f"/apis/fairlead.dev/namespaces/local/workflowruns/{UID}",
        "type": "dev.fairlead.audit.intent",
        "subject": "a",
        "time": "1970-01-01T00:00:01Z",
        "datacontenttype": "application/json",
    }
    assert "secret" not in str(events)


def test_what_is_older_is_left_out(folder: Path) -> None:
    assert audit(folder, "export", "r", "--since=1970-01-01T00:00:02Z") == ""


@pytest.mark.parametrize("words", [["export", "r", "--since=soon"], ["verify"]])
def test_what_is_missing_or_wrong_on_the_command_line_is_said(folder: Path, words: list[str]) -> None:
    with pytest.raises(CommandFailed) as failure:
        audit(folder, *words)
    assert failure.value.code is Exit.USAGE
