"""forEach: one step for every item of a list, so many at a time, and what comes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, accepted, chat, drive, error, model, plan_of, run_steps, step

from fairlead.flow.calls import Call
from fairlead.flow.foreach import MAX_ITEMS
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.state import RunState

Step = dict[str, Any]


def loop(items: Any, **more: Any) -> Step:
    return {"forEach": {"items": items, **more}}


def call(argument: Any = "$( item )", **more: Any) -> Step:
    return {"name": "a", "tool": {"tool": "t", "function": "do", "arguments": {"x": argument}}, **more}


def doubled(request: Call) -> Any:
    return request.request["arguments"]["x"] * 2


def failing(*items: int, error_class: str = "ToolError") -> Any:
    return lambda request: error(error_class) if request.request["arguments"]["x"] in items else doubled(request)


def output(driver: Driver, path: str = "a") -> Any:
    return step(driver.state, path).output


def phases(state: RunState) -> dict[str, str]:
    return {path: found.phase for path, found in state.steps.items()}


def ended(driver: Driver) -> tuple[str, str]:
    assert driver.state.terminal is not None
    return driver.state.terminal.reason, driver.state.terminal.message


def test_the_output_is_a_list_in_the_order_of_the_items() -> None:
    driver = run_steps([call(**loop([3, 1, 2], maxParallel=3))], doubled)
    assert output(driver) == [6, 2, 4]
    assert phases(driver.state) == dict.fromkeys(["a", "a[0]", "a[1]", "a[2]"], "Succeeded")


def test_no_items_give_an_empty_list() -> None:
    driver = run_steps([call(**loop("$( input.none )"))], given={"none": []})
    assert (output(driver), ended(driver)[0], phases(driver.state)) == ([], "Completed", {"a": "Succeeded"})


def test_an_item_and_its_index_are_in_scope_also_in_blocks() -> None:
    inner = {"name": "inner", "steps": [{"name": "x", "transform": {"value": "$( [index, doc.n] )"}}]}
    steps = [{"name": "a", "block": "inner", **loop("$( input.docs )", **{"as": "doc"})}]
    driver = run_steps(steps, blocks=[inner], given={"docs": [{"n": 7}, {"n": 8}]})
    assert output(driver) == [[0, 7], [1, 8]]


def test_an_inner_loop_hides_the_outer_index_and_keeps_the_outer_item() -> None:
    inner = {
        "name": "inner",
        "steps": [{"name": "x", "transform": {"value": "$( [index, page, doc] )"}, **loop([5], **{"as": "page"})}],
    }
    steps = [{"name": "a", "block": "inner", **loop([1, 2], **{"as": "doc"})}]
    assert output(run_steps(steps, blocks=[inner])) == [[[0, 5, 1]], [[0, 5, 2]]]


def test_a_loop_in_a_handler_sees_the_error_too() -> None:
    helper = {
        "name": "help",
        "steps": [{"name": "x", "transform": {"value": "$( [item, error.reason] )"}, **loop([1])}],
    }
    driver = run_steps([call(1, onError={"block": "help"})], lambda request: error("ToolError"), blocks=[helper])
    assert output(driver) == [[1, "ToolError"]]


def test_a_loop_variable_may_have_any_name_that_is_not_refused() -> None:
    assert output(run_steps([call("$( self )", **loop([1], **{"as": "self"}))], doubled)) == [2]


def test_items_are_evaluated_once() -> None:
    driver = run_steps([call(**loop("$( input.list )"))], doubled, given={"list": [1, 2]})
    evaluated = [e for e in driver.journal.of(EntryKind.EVALUATED, "a") if e.data["purpose"] == "Items"]
    assert [entry.data["value"] for entry in evaluated] == [[1, 2]]


def test_a_named_list_may_have_more_items_than_an_expression_takes() -> None:
    plan = plan_of([{"name": "a", "transform": {"value": "$( item )"}, **loop("$( input.list )")}])
    driver = drive(plan, World(), {"list": list(range(1500))})
    assert output(driver) == list(range(1500))


@pytest.mark.parametrize(
    ("items", "given", "reason"),
    [
        ("$( input.n )", {"n": 3}, "NoList"),
        ("$( input )", {}, "NoList"),
        ("$( input.missing )", {}, "ExpressionFailed"),
        ("$( input.list )", {"list": [0] * (MAX_ITEMS + 1)}, "TooManyItems"),
    ],
)
def test_what_is_no_list_of_a_sane_size_fails_the_step(items: str, given: Any, reason: str) -> None:
    driver = run_steps([call(**loop(items), onError={"action": "Continue"})], given=given)
    failed = step(driver.state, "a").error
    assert failed is not None
    assert (failed.error_class, failed.reason) == ("Invalid", reason)
    assert ended(driver)[0] == "Completed"


@pytest.mark.parametrize("width", [1, 2, 5])
def test_no_more_items_than_max_parallel_are_at_work(width: int) -> None:
    most = 0

    class Counting(World):
        def perform(self, call: Call) -> Any:
            nonlocal most
            most = max(most, len(driver.state.bodies["a["].open))
            return super().perform(call)

    plan = plan_of([call(**loop([1, 2, 3, 4], maxParallel=width))])
    driver = Driver(plan, Counting(answer=doubled), accepted(plan))
    driver.run()
    assert (most, output(driver)) == (min(width, 4), [2, 4, 6, 8])


def test_under_continue_a_failed_item_is_null_and_the_others_go_on() -> None:
    driver = run_steps([call(**loop([1, 2, 3], onItemFailure="Continue"))], failing(1, 3))
    assert (output(driver), ended(driver)[0]) == ([None, 4, None], "Completed")
    assert phases(driver.state)["a[0]"] == "Failed"


def test_under_fail_nothing_starts_after_the_first_failure() -> None:
    driver = run_steps([call(**loop([1, 2, 3]))], failing(2))
    assert phases(driver.state) == {"a": "Failed", "a[0]": "Succeeded", "a[1]": "Failed"}
    assert ended(driver) == ("StepFailed", "a[1]: ToolError/ToolError: it went wrong")


def test_under_fail_items_under_way_tell_how_they_went() -> None:
    driver = run_steps([call(**loop([1, 2, 3, 4], maxParallel=2))], failing(1))
    assert phases(driver.state) == {"a": "Failed", "a[0]": "Failed", "a[1]": "Succeeded"}
    assert len(driver.journal.of(EntryKind.CALL_OUTCOME, "a[1]")) == 1


def test_onerror_is_of_the_step_as_a_whole() -> None:
    helper = {"name": "help", "steps": [{"name": "x", "transform": {"value": "$( error.reason )"}}]}
    driver = run_steps([call(**loop([1, 2]), onError={"block": "help"})], failing(1), blocks=[helper])
    assert (output(driver), ended(driver)[0]) == ("ToolError", "Completed")
    assert "a[1]" not in driver.state.steps


def test_retry_is_of_each_item() -> None:
    answers = iter([error("Unavailable"), 1, error("Unavailable"), 2])
    driver = run_steps([call(**loop([1, 2]), retry={"limit": 1})], lambda request: next(answers))
    assert output(driver) == [1, 2]
    assert [step(driver.state, path).attempt for path in ("a", "a[0]", "a[1]")] == [1, 2, 2]


def test_a_timeout_is_of_each_item() -> None:
    plan = plan_of([call(**loop([1, 2, 3]), timeoutSeconds=5)])
    driver = drive(plan, World(answer=doubled, call_ms=4_000))
    assert output(driver) == [2, 4, 6]
    assert [step(driver.state, path).deadline > 0 for path in ("a", "a[0]")] == [False, True]


def test_when_is_looked_at_once_for_all_items() -> None:
    driver = run_steps([call(**loop([1, 2]), when="false")])
    assert phases(driver.state) == {"a": "Skipped"}


def test_a_new_attempt_around_it_tries_only_the_failed_items_again() -> None:
    failures = {2: 1}

    def answer(request: Call) -> Any:
        x = request.request["arguments"]["x"]
        failures[x] = failures.get(x, 0) - 1
        return error("Unavailable") if failures[x] >= 0 else doubled(request)

    inner = {"name": "inner", "steps": [call(**loop([1, 2, 3]))]}
    driver = run_steps([{"name": "b", "block": "inner", "retry": {"limit": 1}}], answer, blocks=[inner])
    assert output(driver, "b") == [2, 4, 6]
    assert [request.request["arguments"]["x"] for request in driver.world.performed] == [1, 2, 2, 3]


def test_an_unknown_outcome_beside_a_failure_is_not_tried_again() -> None:
    def answer(request: Call) -> Any:
        return error("Unavailable" if request.id.path.endswith("[0]") else "OutcomeUnknown")

    inner = {"name": "inner", "steps": [call(**loop([1, 2], maxParallel=2))]}
    driver = run_steps([{"name": "b", "block": "inner", "retry": {"limit": 3}}], answer, blocks=[inner])
    assert ended(driver)[0] == "OutcomeUnknown"
    assert len(driver.world.performed) == 2


def test_each_item_counts_as_a_step_of_the_run() -> None:
    driver = run_steps([call(**loop([1, 2, 3]))], doubled, limits={"steps": 3})
    assert ended(driver) == ("BudgetExceeded", "more than 3 steps would start")


LIMITED: dict[str, tuple[Step, dict[str, int], str]] = {
    "toolCalls": (call("$( item )"), {"toolCalls": 2}, "toolCalls 2"),
    "modelCalls": ({"name": "a", "generate": {"model": "m", "prompt": "x"}}, {"modelCalls": 2}, "modelCalls 2"),
    "tokens": ({"name": "a", "generate": {"model": "m", "prompt": "x"}}, {"tokens": 28}, "tokens 28"),
    "steps": ({"name": "a", "block": "one"}, {"steps": 4}, "steps 4"),
}


@pytest.mark.parametrize(("limited", "limits", "reached"), LIMITED.values(), ids=LIMITED)
def test_once_a_limit_is_reached_no_further_item_starts(limited: Step, limits: dict[str, int], reached: str) -> None:
    one = {"name": "one", "steps": [{"name": "x", "transform": {"value": 1}}]}
    plan = plan_of([{**limited, **loop([1, 2, 3, 4, 5]), "limits": limits}], blocks=[one])
    world = World(answer=lambda call: chat("hi") if call.function == "" else 1, models={"m": model()})
    driver = drive(plan, world)
    assert [value is None for value in output(driver)] == [False, False, True, True, True]
    assert step(driver.state, "a").partial == f"BudgetExceeded: {reached} reached, 3 of 5 skipped"
    assert set(phases(driver.state)) & {"a[2]", "a[3]", "a[4]"} == set()
    assert ended(driver)[0] == "Completed"


def test_limits_count_each_loop_for_itself() -> None:
    inner = {
        "name": "inner",
        "steps": [call("$( page )", **loop([1, 2, 3], **{"as": "page"}), limits={"toolCalls": 2})],
    }
    driver = run_steps([{"name": "b", "block": "inner", **loop([1, 2])}], doubled, blocks=[inner])
    assert output(driver, "b") == [[2, 4, None], [2, 4, None]]
    used = step(driver.state, "b").used
    assert used is not None
    assert (used.tool_calls, used.steps) == (4, 8)


def test_a_limit_that_all_items_just_meet_leaves_nothing_out() -> None:
    driver = run_steps([call(**loop([1, 2]), limits={"toolCalls": 2})], doubled)
    assert (output(driver), step(driver.state, "a").partial) == ([2, 4], "")


def test_items_that_had_begun_when_a_limit_was_met_are_left_out_too() -> None:
    """The gate says of the second item's call that a limit is met; the third has begun and has not called yet."""

    class Limited(World):
        def decide(self, state: RunState, call: Call) -> str | None:
            return "BudgetExceeded" if call.id.path == "a[1]" else None

    class OneAtATime(Driver):
        def call(self, calls: tuple[Call, ...]) -> None:
            super().call(calls[:1])

        def append(self, draft: Draft) -> None:
            met = {"forEach": "a", "limit": "toolCalls 1"} if draft.kind is EntryKind.CALL_DENIED else {}
            super().append(replace(draft, data={**draft.data, **met}))

    plan = plan_of([call(**loop([1, 2, 3], maxParallel=3))])
    driver = OneAtATime(plan, Limited(answer=doubled), accepted(plan))
    driver.run()
    assert {path: found.error.error_class for path, found in driver.state.steps.items() if found.error} == {
        "a[1]": "BudgetExceeded",
        "a[2]": "Cancelled",
    }
    assert step(driver.state, "a").partial == "BudgetExceeded: toolCalls 1 reached, 2 of 3 skipped"
    assert (output(driver), ended(driver)[0]) == ([2, None, None], "Completed")
