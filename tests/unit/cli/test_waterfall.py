"""The waterfall is a pure function of the journal."""

from __future__ import annotations

import pytest

from fairlead.cli.waterfall import render, spans_of
from fairlead.flow.journal import Entry, EntryKind, Path, RunUid

UID = "11111111-2222-4333-8444-555555555555"
CALL = {"index": "0.0.0", "kind": "Chat", "target": "small", "digest": "d", "effect": "Read"}
TOOL = {"index": "0.0.0", "kind": "Tool", "target": "handbook", "function": "remove", "digest": "d"}


def entry(seq: int, at: int, what: EntryKind, path: str = "", attempt: int = 0, **data: object) -> Entry:
    return Entry(RunUid(UID), seq, at, what, Path(path), attempt, data)


JOURNAL = [
    entry(1, 0, EntryKind.RUN_ACCEPTED, workflow="triage", name="r", namespace="n", revision="sha256:0"),
    entry(2, 0, EntryKind.STEP_STARTED, "write", 1),
    entry(3, 0, EntryKind.CALL_INTENT, "write", 1, **CALL),
    entry(
        4, 500, EntryKind.CALL_OUTCOME, "write", 1,
        index="0.0.0", status="Succeeded", usage={"inputTokens": 40, "outputTokens": 8},
    ),
    entry(5, 500, EntryKind.STEP_SUCCEEDED, "write", 1, output={}),
    entry(6, 500, EntryKind.STEP_STARTED, "clean", 1),
    entry(7, 500, EntryKind.STEP_FAILED, "clean", 1, error={"class": "Timeout", "reason": "Timeout"}, final=False),
    entry(8, 900, EntryKind.STEP_STARTED, "clean", 2),
    entry(9, 990, EntryKind.CALL_DENIED, "clean", 2, **TOOL, reason="Forbidden", stage=5),
    entry(10, 1000, EntryKind.STEP_FAILED, "clean", 2, error={"class": "Denied", "reason": "Forbidden"}, final=True),
    entry(11, 1000, EntryKind.RUN_FAILED, reason="Denied"),
]  # fmt: skip


def test_bars_stand_where_the_time_went() -> None:
    assert render(spans_of(UID, JOURNAL), width=80) == [
        "triage                ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░    1.0s ✖ Denied",
        "  write               ███████████████                  500ms",
        "    chat small        ███████████████                  500ms 40+8 tok",
        "  clean                              ░░░░░░░░░░░░░░░   500ms ✖ Forbidden",
        "    attempt 1                        ░                   0ms ✖ Timeout",
        "    attempt 2                                    ░░░   100ms ✖ Forbidden",
        "      handbook.remove                              ░     0ms ✖ Forbidden",
    ]


@pytest.mark.parametrize("width", [0, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    lines = render(spans_of(UID, JOURNAL), width=width)
    assert all(len(line) <= max(width, 60) for line in lines)


@pytest.mark.parametrize("length", range(len(JOURNAL) + 1))
def test_every_prefix_of_a_journal_can_be_shown(length: int) -> None:
    assert render(spans_of(UID, JOURNAL[:length]), width=80)
