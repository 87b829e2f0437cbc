"""The step tree shows every step once, below what holds it, from a status as from a state."""

from __future__ import annotations

import pytest

from fairlead.cli.tree import MOST_LINES, Progress, StepLine, from_status, render

LINES = [
    StepLine("topic", "Succeeded", started_ms=0, finished_ms=40),
    StepLine("reply", "Running", started_ms=50),
    StepLine("reply#1", "Succeeded", started_ms=50, finished_ms=3050),
    StepLine("reply#1/write", "Succeeded", attempts=2, started_ms=60, finished_ms=2060, tokens=99),
    StepLine("reply#2/write", "Failed", started_ms=3100, finished_ms=3200, message="Denied: no\nway"),
    StepLine("ticket", "Skipped"),
]


def test_children_stand_below_what_holds_them() -> None:
    assert render(LINES, now_ms=60_050, width=80) == [
        "✔ topic                    40ms",
        "▸ reply                    1m00s",
        "✔   #1                     3.0s",
        "✔     write                2.0s  99 tokens  attempt 2",
        "✖   #2/write               100ms  Denied: no way",
        "- ticket",
    ]


def test_a_status_is_ordered_by_start_whatever_the_order_of_its_rows() -> None:
    rows = [
        {"path": "b", "phase": "Running", "attempts": 1, "startedAt": "2026-01-01T00:00:02Z"},
        {"path": "c", "phase": "Skipped"},
        {"path": "a", "phase": "Succeeded", "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:02Z"},
    ]
    assert [line.path for line in from_status(rows)] == ["a", "b", "c"]


def test_items_and_branches_stand_below_their_step() -> None:
    lines = [StepLine("each", "Running"), StepLine("each[0]", "Running"), StepLine("each[0]/logs/fetch", "Running")]
    assert render(lines, now_ms=0, width=80) == ["▸ each", "▸   [0]", "▸     logs/fetch"]


def test_however_many_items_there_are_the_open_and_the_failed_ones_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("run r", live=False)
    progress.update([StepLine("a", "Running", started_ms=0)], now_ms=0)
    for number in range(3 * MOST_LINES):
        phase = "Failed" if number == 1 else "Succeeded"
        progress.update([StepLine(f"a[{number}]", phase, started_ms=0, finished_ms=1)], now_ms=1)
    assert len(capsys.readouterr().err.splitlines()) == 2 + 3 * MOST_LINES
    assert progress.open == ["a"]
    assert [*progress._lines][:2] == ["a", "a[1]"]
    assert len(progress._lines) == MOST_LINES


def test_without_a_terminal_every_change_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("run r", live=False)
    progress.update([StepLine("a", "Running", started_ms=0)], now_ms=5)
    progress.update([StepLine("a", "Running", started_ms=0)], now_ms=9)
    progress.update([StepLine("a", "Succeeded", started_ms=0, finished_ms=10)], now_ms=10)
    progress.close()
    said = capsys.readouterr().err.splitlines()
    assert [line.split() for line in said] == [["run", "r"], ["▸", "a", "5ms"], ["✔", "a", "10ms"]]
