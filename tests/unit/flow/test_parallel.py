"""parallel: blocks at the same time, and when enough of them have succeeded."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, accepted, drive, error, plan_of, run_steps, step, tool

from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.next import what_next

Step = dict[str, Any]


def call(name: str = "do", *, function: str = "write", **more: Any) -> Step:
    return {"name": name, "tool": {"tool": "t", "function": function, "arguments": {}}, **more}


def blocks(*names: str, function: str = "write") -> list[Step]:
    return [{"name": name, "steps": [call(function=function)]} for name in names]


def both(*names: str, join: dict[str, Any] | None = None, **more: Any) -> Step:
    return {"name": "both", "parallel": {"blocks": [*names], **({"join": join} if join else {})}, **more}


def failing(*names: str, error_class: str = "ToolError") -> Any:
    return lambda request: error(error_class) if request.id.path.split("/")[1] in names else branch(request)


def branch(request: Call) -> str:
    return request.id.path.split("/")[1]


def outcome(driver: Driver) -> Any:
    found = step(driver.state, "both")
    if found.phase == "Succeeded" or found.error is None:
        return found.output
    return found.error.error_class, found.error.reason


def test_the_output_has_a_member_for_each_block() -> None:
    driver = run_steps([both("logs", "metrics")], branch, blocks=blocks("logs", "metrics"))
    assert outcome(driver) == {"logs": "logs", "metrics": "metrics"}
    assert list(driver.state.steps) == ["both", "both/logs", "both/metrics", "both/logs/do", "both/metrics/do"]


def test_the_blocks_run_at_the_same_time() -> None:
    plan = plan_of([both("a", "b", "c")], blocks=blocks("a", "b", "c"))
    driver = Driver(plan, World(answer=branch), accepted(plan))
    while not (upcoming := what_next(plan, driver.state, driver.journal.now_ms, driver.world)).calls:
        for draft in upcoming.records:
            driver.append(draft)
    assert [wanted.id.path for wanted in upcoming.calls] == ["both/a/do", "both/b/do", "both/c/do"]


def test_a_block_sees_what_is_visible_at_its_call_and_no_other_branch() -> None:
    seen = [{"name": "one", "steps": [{"name": "x", "transform": {"value": "$( steps.one.output )"}}]}]
    steps = [{"name": "one", "transform": {"value": 7}}, both("one")]
    assert outcome(run_steps(steps, blocks=seen)) == {"one": 7}


JOINS: dict[str, tuple[dict[str, Any] | None, tuple[str, ...], Any]] = {
    "all, none fails": (None, (), {"a": "a", "b": "b", "c": "c"}),
    "all, one fails": ({"mode": "All"}, ("b",), ("ToolError", "ToolError")),
    "any, none fails": ({"mode": "Any"}, (), {"a": "a", "b": None, "c": None}),
    "any, one is left": ({"mode": "Any"}, ("a", "b"), {"a": None, "b": None, "c": "c"}),
    "any, all fail": ({"mode": "Any"}, ("a", "b", "c"), ("ToolError", "JoinNotMet")),
    "two, none fails": ({"succeeded": 2}, (), {"a": "a", "b": "b", "c": None}),
    "two, one fails": ({"succeeded": 2}, ("a",), {"a": None, "b": "b", "c": "c"}),
    "two, two fail": ({"succeeded": 2}, ("a", "b"), ("ToolError", "JoinNotMet")),
}


@pytest.mark.parametrize(("join", "fail", "expected"), JOINS.values(), ids=JOINS)
def test_the_join_says_how_many_must_succeed(join: Any, fail: tuple[str, ...], expected: Any) -> None:
    functions = [{"name": "read", "effect": "Read"}]
    plan = plan_of([both("a", "b", "c", join=join)], blocks=blocks("a", "b", "c", function="read"))
    driver = drive(plan, World(answer=failing(*fail), tools={"t": tool(*functions)}))
    assert outcome(driver) == expected


def test_a_join_that_cannot_be_met_says_what_failed() -> None:
    steps = [both("a", "b", "c", join={"succeeded": 2})]
    driver = run_steps(steps, failing("a", "b"), blocks=blocks("a", "b", "c"))
    assert driver.state.terminal is not None
    assert driver.state.terminal.message == (
        "both: ToolError/JoinNotMet: 2 of 3 blocks must succeed; 'a' failed: ToolError: it went wrong"
    )


def test_where_all_must_succeed_the_failure_is_that_of_the_step_within() -> None:
    driver = run_steps([both("a", "b")], failing("b"), blocks=blocks("a", "b"))
    assert driver.state.terminal is not None
    assert driver.state.terminal.message == "both/b/do: ToolError/ToolError: it went wrong"


def test_once_the_join_is_met_reads_are_cancelled_and_effects_tell_how_they_went() -> None:
    branches = [*blocks("fast"), *blocks("read", function="read"), *blocks("write")]
    plan = plan_of([both("fast", "read", "write", join={"mode": "Any"})], blocks=branches)
    functions = [{"name": "read", "effect": "Read"}, {"name": "write"}]
    driver = drive(plan, World(answer=branch, tools={"t": tool(*functions)}))
    assert [branch(request) for request in driver.world.performed] == ["fast", "write"]
    assert outcome(driver) == {"fast": "fast", "read": None, "write": "write"}
    cancelled = step(driver.state, "both/read/do").error
    assert cancelled is not None
    assert cancelled.error_class == "Cancelled"


def test_a_branch_that_backs_off_is_cancelled_when_the_join_is_met() -> None:
    slow = {"name": "slow", "steps": [call(retry={"limit": 3, "backoffSeconds": 600})]}
    steps = [both("slow", "fast", join={"mode": "Any"})]
    driver = run_steps(steps, failing("slow", error_class="Unavailable"), blocks=[slow, *blocks("fast")])
    assert outcome(driver) == {"slow": None, "fast": "fast"}
    assert driver.journal.now_ms < accepted(driver.plan).now_ms + 600_000


def test_a_retry_runs_only_the_failed_branches_again() -> None:
    answers = {"b": iter([error("Unavailable"), "b"])}

    def answer(request: Call) -> Any:
        name = branch(request)
        return next(answers[name]) if name in answers else name

    driver = run_steps([both("a", "b", retry={"limit": 1})], answer, blocks=blocks("a", "b"))
    assert outcome(driver) == {"a": "a", "b": "b"}
    assert [branch(request) for request in driver.world.performed].count("a") == 1


def test_a_timeout_ends_all_branches() -> None:
    slow = [{"name": name, "steps": [call(retry={"limit": 9, "backoffSeconds": 60})]} for name in ("a", "b")]
    steps = [both("a", "b", timeoutSeconds=5)]
    driver = run_steps(steps, failing("a", "b", error_class="Unavailable"), blocks=slow)
    assert outcome(driver) == ("Timeout", "Timeout")


def test_branches_and_their_steps_count_as_steps_of_the_run() -> None:
    driver = run_steps([both("a", "b")], branch, blocks=blocks("a", "b"), limits={"steps": 4})
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "BudgetExceeded"
    assert driver.state.usage.steps == 4


def test_a_parallel_of_each_item_runs_beside_the_others() -> None:
    steps = [both("a", "b", forEach={"items": [1, 2], "maxParallel": 2})]
    driver = run_steps(steps, lambda request: request.id.path, blocks=blocks("a", "b"))
    assert outcome(driver) == [{name: f"both[{i}]/{name}/do" for name in "ab"} for i in (0, 1)]


def test_a_closing_run_starts_no_branch() -> None:
    plan = plan_of([both("a", "b")], blocks=blocks("a", "b"))
    driver = Driver(plan, World(answer=branch), accepted(plan), stop_after=None)
    driver.append(Draft(EntryKind.STEP_STARTED, driver.plan.main.sequence[0].name, 1))  # type: ignore[arg-type]
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": ""}))
    driver.run()
    assert "both/a" not in driver.state.steps
