"""order: Graph: what starts when, what a join waits for, what runs after a failure."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.test_next import call, compute, ended, failing
from tests.unit.flow.world import error, run_steps, step

from fairlead.flow.calls import Call
from fairlead.flow.journal import EntryKind


def test_a_graph_starts_all_that_needs_nothing_at_once() -> None:
    steps = [call("a"), call("b"), call("c", needs=["a", "b"])]
    driver = run_steps(steps, order="Graph")
    started = [entry.path for entry in driver.journal.of(EntryKind.STEP_STARTED)]
    intents = [entry.path for entry in driver.journal.of(EntryKind.CALL_INTENT)]
    assert (started, intents) == (["a", "b", "c"], ["a", "b", "c"])
    first_outcome = driver.journal.of(EntryKind.CALL_OUTCOME)[0]
    assert [e.path for e in driver.journal.of(EntryKind.CALL_INTENT) if e.seq < first_outcome.seq] == ["a", "b"]


@pytest.mark.parametrize(
    ("join", "skipped", "waits_for"),
    [("All", [], "b"), ("All", ["a"], "b"), ("Any", [], "a"), ("Any", ["a"], "b"), ("AllDone", [], "b")],
)
def test_a_join_decides_when_a_step_starts(join: str, skipped: list[str], waits_for: str) -> None:
    steps = [call(name, **({"when": "false"} if name in skipped else {})) for name in ("a", "b")]
    driver = run_steps([*steps, compute("c", 1, needs=["a", "b"], join=join)], order="Graph")
    start = driver.journal.of(EntryKind.STEP_STARTED, "c")[0].seq
    before = [entry.path for entry in driver.journal.of(EntryKind.STEP_SUCCEEDED) if entry.seq < start]
    assert before[-1] == waits_for


@pytest.mark.parametrize("join", ["All", "AllDone"])
def test_a_failed_step_under_continue_is_done_with_a_null_output(join: str) -> None:
    steps = [
        call("a", onError={"action": "Continue"}),
        compute("b", "$( [steps.a.output, steps.a.phase, steps.a.error.reason] )", needs=["a"], join=join),
    ]
    driver = run_steps(steps, failing("a"), order="Graph")
    assert step(driver.state, "b").output == [None, "Failed", "ToolError"]


def test_a_step_that_joins_whatever_was_done_runs_after_a_failure_and_the_run_fails() -> None:
    steps = [
        call("a"),
        call("b", needs=["a"]),
        call("other"),
        call("cleanup", needs=["a", "b"], join="AllDone", retry={"limit": 1}),
        call("last", needs=["cleanup", "other"], join="AllDone"),
        call("never", needs=["cleanup"]),
    ]
    away = iter([error("Unavailable"), {}])

    def answer(made: Call) -> Any:
        return error("ToolError") if made.id.path == "a" else next(away) if made.id.path == "cleanup" else {}

    driver = run_steps(steps, answer, order="Graph")
    made = [(made.id.path, made.id.attempt) for made in driver.world.performed]
    assert made == [("a", 1), ("other", 1), ("cleanup", 1), ("cleanup", 2), ("last", 1)]
    assert ended(driver) == ("RunFailed", "StepFailed")
    assert "a: ToolError" in str(driver.state.terminal.message if driver.state.terminal else "")
