"""Logs of container steps, read out of a journal."""

from __future__ import annotations

from typing import Any

from fairlead.cli.logs import ContainerLog, container_logs, earlier_runs
from fairlead.flow.journal import Entry, EntryKind, Path, RunUid


def entry(what: EntryKind, path: str = "report", attempt: int = 1, **data: Any) -> Entry:
    return Entry(RunUid("u"), 1, 0, what, Path(path), attempt, {"index": "0.0.0", **data})


def test_each_attempt_of_a_container_has_its_log_and_what_is_no_container_has_none() -> None:
    found = container_logs(
        [
            entry(EntryKind.CALL_INTENT, "ask", kind="Tool"),
            entry(EntryKind.CALL_OUTCOME, "ask", result={"logs": "a tool may say so"}),
            entry(EntryKind.CALL_INTENT, kind="Container"),
            entry(EntryKind.POD_STARTED, name="fairlead-step-1", uid="p1"),
            entry(EntryKind.CALL_OUTCOME, error={"class": "ToolError"}, result={"logs": "no\n"}),
            entry(EntryKind.CALL_INTENT, attempt=2, kind="Container"),
            entry(EntryKind.POD_STARTED, attempt=2, name="fairlead-step-2", uid="p2"),
        ]
    )
    assert list(found) == [
        ContainerLog("report", 1, "fairlead-step-1", "no\n", ended=True),
        ContainerLog("report", 2, "fairlead-step-2"),
    ]


def test_what_an_earlier_run_did_has_its_logs_there() -> None:
    entries = [entry(EntryKind.STEP_SUCCEEDED, reusedFrom="first"), entry(EntryKind.STEP_SUCCEEDED, "other")]
    assert earlier_runs(entries, "") == earlier_runs(entries, "report") == ["first"]
    assert earlier_runs(entries, "other") == []
