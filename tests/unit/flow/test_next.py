"""How a run goes: order, joins, conditions, retries, error handling, loops, time and the end. Through `what_next`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import Driver, Stopped, World, accepted, drive, error, plan_of, run_steps, step, tool

from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.next import CLOSING_GRACE_MS, what_next

Step = dict[str, Any]


def compute(name: str, value: Any, **more: Any) -> Step:
    return {"name": name, "transform": {"value": value}, **more}


def call(name: str, function: str = "do", **more: Any) -> Step:
    return {"name": name, "tool": {"tool": "t", "function": function, "arguments": {}}, **more}


def block(name: str, *steps: Step, **more: Any) -> dict[str, Any]:
    return {"name": name, "steps": list(steps), **more}


def phases(driver: Driver) -> dict[str, str]:
    return {path: state.phase for path, state in driver.state.steps.items()}


def ended(driver: Driver) -> tuple[str, str]:
    terminal = driver.state.terminal
    assert terminal is not None
    return terminal.kind.value, terminal.reason


def failing(*paths: str, error_class: str = "ToolError", times: int = 10**6) -> Any:
    """Answer with an error at these paths, the first `times` attempts."""

    def answer(call: Call) -> Any:
        wrong = call.id.path in paths and call.id.attempt <= times
        return error(error_class) if wrong else {"at": call.id.path}

    return answer


def test_a_sequence_runs_in_order_and_gives_its_last_output() -> None:
    driver = run_steps([compute("one", 1), compute("two", "$( steps.one.output + 1 )")])
    assert driver.state.terminal is not None
    assert driver.state.terminal.output == 2
    assert [entry.path for entry in driver.journal.of(EntryKind.STEP_SUCCEEDED)] == ["one", "two"]


def test_the_workflow_says_its_output() -> None:
    driver = run_steps([compute("one", 1)], output={"sum": "$( steps.one.output + input.n )"}, given={"n": 2})
    assert driver.state.terminal is not None
    assert driver.state.terminal.output == {"sum": 3}


def test_expressions_see_the_run() -> None:
    value = "$( run.name + '/' + workflow.name + '/' + run.createdAt )"
    driver = run_steps([compute("one", value)])
    assert step(driver.state, "one").output == "run/flow/1970-01-01T00:16:40.000Z"


def test_a_false_when_skips_the_step() -> None:
    driver = run_steps([compute("a", 1, when="input.go"), compute("b", "$( steps.a.output )")], given={"go": False})
    assert phases(driver) == {"a": "Skipped", "b": "Succeeded"}
    assert step(driver.state, "b").output is None
    assert driver.journal.of(EntryKind.STEP_STARTED, "a") == []


@pytest.mark.parametrize(
    "steps",
    [
        [compute("a", "$( input.missing.deeper )")],
        [compute("a", 1, when="input.missing")],
        [{"name": "a", "block": "inner"}],
        [compute("a", 1, repeat={"until": "input.missing", "maxIterations": 2})],
    ],
    ids=["inputs", "when", "block output", "until"],
)
def test_an_expression_without_a_value_fails_its_step(steps: list[Step]) -> None:
    blocks = [block("inner", compute("x", 1), output="$( input.missing )")]
    driver = run_steps(steps, given={}, blocks=blocks)
    assert ended(driver) == ("RunFailed", "StepFailed")
    failure = step(driver.state, "a").error
    assert failure is not None
    assert (failure.error_class, failure.reason) == ("Invalid", "ExpressionFailed")


def test_a_failure_ends_the_run_and_says_where() -> None:
    blocks = [block("outer", {"name": "mid", "block": "inner"}), block("inner", call("deep"))]
    driver = run_steps([{"name": "top", "block": "outer"}], failing("top/mid/deep"), blocks=blocks)
    assert driver.state.terminal is not None
    assert driver.state.terminal.message == "top/mid/deep: ToolError/ToolError: it went wrong"
    assert ended(driver) == ("RunFailed", "StepFailed")


def test_a_failing_graph_starts_nothing_more_and_waits_for_open_calls() -> None:
    steps = [call("a"), call("b", "write"), compute("c", 1, needs=["b"])]
    driver = run_steps(steps, failing("a"), order="Graph")
    assert phases(driver) == {"a": "Failed", "b": "Succeeded"}
    assert ended(driver) == ("RunFailed", "StepFailed")


def test_a_failing_graph_cancels_what_has_no_open_call() -> None:
    retry = {"limit": 1, "backoffSeconds": 60, "errorClasses": ["Unavailable"]}
    steps = [call("a", retry=retry), call("b")]

    def answer(call: Call) -> Any:
        return error("Unavailable") if call.id.path == "a" else error("ToolError")

    driver = run_steps(steps, answer, order="Graph")
    assert phases(driver) == {"a": "Failed", "b": "Failed"}
    assert len(driver.world.performed) == 2
    assert driver.state.terminal is not None
    assert driver.state.terminal.message.startswith("b: ToolError")


# Retry.


@pytest.mark.parametrize(
    ("error_class", "on", "attempts"),
    [
        ("Timeout", None, 3),
        ("Unavailable", None, 3),
        ("RateLimited", None, 3),
        ("ToolError", None, 1),
        ("ToolError", ["ToolError"], 3),
        ("Unavailable", ["ToolError"], 1),
        ("Invalid", None, 1),
        ("OutcomeUnknown", None, 1),
        ("Cancelled", None, 1),
    ],
)
@pytest.mark.requirement("G3")
def test_only_some_errors_are_tried_again(error_class: str, on: list[str] | None, attempts: int) -> None:
    retry = {"limit": 2} | ({"errorClasses": on} if on else {})
    driver = run_steps([call("a", retry=retry)], failing("a", error_class=error_class))
    assert step(driver.state, "a").attempt == attempts
    assert len(driver.world.performed) == attempts


def test_a_retry_waits_and_may_succeed() -> None:
    driver = run_steps([call("a", retry={"limit": 2})], failing("a", error_class="Unavailable", times=2))
    assert step(driver.state, "a").output == {"at": "a"}
    waits = [entry.data["wakeAt"] - entry.at for entry in driver.journal.of(EntryKind.TIMER_SET)]
    assert 500 <= waits[0] <= 1000 <= waits[1] <= 2000
    started = [entry.at for entry in driver.journal.of(EntryKind.STEP_STARTED)]
    assert started[1:] == [entry.data["wakeAt"] for entry in driver.journal.of(EntryKind.TIMER_SET)]


def test_the_workflow_s_default_retry_holds_for_calls_and_not_for_blocks() -> None:
    driver = run_steps(
        [{"name": "a", "block": "inner"}],
        failing("a/x", error_class="Unavailable"),
        blocks=[block("inner", call("x"))],
        defaults={"retry": {"limit": 2}},
    )
    assert (step(driver.state, "a").attempt, step(driver.state, "a/x").attempt) == (1, 3)


def test_what_the_other_side_asks_for_is_waited_for() -> None:
    def answer(call: Call) -> Any:
        return error("RateLimited", retry_after_ms=90_000) if call.id.attempt == 1 else {}

    driver = run_steps([call("a", retry={"limit": 1})], answer)
    timer = driver.journal.of(EntryKind.TIMER_SET)[0]
    assert timer.data["wakeAt"] - timer.at == 90_000


@pytest.mark.requirement("G1")
def test_a_new_attempt_of_a_block_runs_only_what_failed() -> None:
    steps = [{"name": "a", "block": "inner", "retry": {"limit": 1}}]
    blocks = [block("inner", call("x"), call("y", retry={"limit": 0}), call("z"))]
    driver = run_steps(steps, failing("a/y", error_class="Unavailable", times=1), blocks=blocks)
    made = [(call.id.path, call.id.attempt) for call in driver.world.performed]
    assert made == [("a/x", 1), ("a/y", 1), ("a/y", 2), ("a/z", 1)]
    assert ended(driver) == ("RunSucceeded", "Completed")


def test_inputs_are_evaluated_once_for_all_attempts() -> None:
    driver = run_steps([call("a", retry={"limit": 2})], failing("a", error_class="Unavailable", times=2))
    assert len(driver.journal.of(EntryKind.EVALUATED, "a")) == 1


# onError.


def test_an_error_block_s_output_becomes_the_step_s() -> None:
    blocks = [block("help", compute("say", "$( error.class + ': ' + error.message )"))]
    driver = run_steps([call("a", onError={"block": "help"}), compute("b", 1)], failing("a"), blocks=blocks)
    assert step(driver.state, "a").output == "ToolError: it went wrong"
    assert phases(driver) == {"a": "Succeeded", "a!/say": "Succeeded", "b": "Succeeded"}


def test_an_error_block_that_fails_fails_the_step() -> None:
    blocks = [block("help", call("say"))]
    driver = run_steps([call("a", onError={"block": "help"})], failing("a", "a!/say"), blocks=blocks)
    assert driver.state.terminal is not None
    assert driver.state.terminal.message.startswith("a!/say: ")


def test_an_error_block_runs_when_the_attempts_are_used_up() -> None:
    blocks = [block("help", compute("say", "$( steps.a.attempts )"))]
    steps = [call("a", onError={"block": "help"}, retry={"limit": 2})]
    driver = run_steps(steps, failing("a", error_class="Unavailable"), blocks=blocks)
    assert step(driver.state, "a").output == 3


@pytest.mark.requirement("G1")
def test_a_retried_block_goes_on_with_the_error_block_that_had_begun_and_does_it_once() -> None:
    inner = block("inner", call("book", onError={"block": "undo"}), call("after"))
    undo = block("undo", call("cancel"), call("tell"), compute("why", "$( error.reason )"))
    steps = [{"name": "a", "block": "inner", "retry": {"limit": 1}}]
    answers = iter([error("ToolError"), {}, error("Unavailable"), {}, {}])
    driver = run_steps(steps, lambda call: next(answers), blocks=[inner, undo])
    made = [(made.id.path, made.id.attempt) for made in driver.world.performed]
    tells = [("a/book!/tell", 1), ("a/book!/tell", 2)]
    assert made == [("a/book", 1), ("a/book!/cancel", 1), *tells, ("a/after", 1)]
    assert step(driver.state, "a/book!/why").output == "ToolError"
    assert ended(driver) == ("RunSucceeded", "Completed")


def test_a_when_that_cannot_be_evaluated_is_handled_like_any_error() -> None:
    blocks = [block("help", compute("say", "$( error.reason )"))]
    driver = run_steps([compute("a", 1, when="input.no", onError={"block": "help"})], given={}, blocks=blocks)
    assert step(driver.state, "a").output == "ExpressionFailed"


# Blocks and repeat.


def test_a_block_sees_what_is_visible_where_it_is_called() -> None:
    blocks = [block("inner", compute("x", "$( steps.n.output * 10 )"), compute("y", "$( steps.x.output + 1 )"))]
    steps = [compute("n", 1), {"name": "a", "block": "inner"}, {"name": "b", "block": "inner"}]
    driver = run_steps(steps, blocks=blocks, output=["$( steps.a.output )", "$( steps.b.output )"])
    assert driver.state.terminal is not None
    assert driver.state.terminal.output == [11, 11]


def test_a_repeat_runs_until_its_condition_holds() -> None:
    blocks = [block("inner", compute("x", "$( iteration * 10 )"))]
    steps: list[Step] = [
        {"name": "a", "block": "inner", "repeat": {"until": "output >= 30 && iteration == 3", "maxIterations": 9}}
    ]
    driver = run_steps(steps, blocks=blocks)
    assert step(driver.state, "a").output == 30
    assert [path for path in driver.state.steps if "/" in path] == ["a#1/x", "a#2/x", "a#3/x"]


def test_an_iteration_sees_the_output_of_the_one_before() -> None:
    value = "$( previous == null ? [iteration] : previous + [iteration] )"
    driver = run_steps([compute("a", value, repeat={"until": "size(output) == 3", "maxIterations": 5})])
    assert step(driver.state, "a").output == [1, 2, 3]
    assert [entry.path for entry in driver.journal.of(EntryKind.STEP_STARTED)] == ["a", "a#1", "a#2", "a#3"]


@pytest.mark.parametrize(("on_exhausted", "phase", "output"), [("Fail", "Failed", None), ("Continue", "Succeeded", 2)])
def test_a_repeat_is_bounded(on_exhausted: str, phase: str, output: int | None) -> None:
    repeat = {"until": "false", "maxIterations": 2, "onExhausted": on_exhausted}
    driver = run_steps([compute("a", "$( iteration )", repeat=repeat)])
    assert (step(driver.state, "a").phase, step(driver.state, "a").output) == (phase, output)


@pytest.mark.requirement("A42")
def test_two_steps_that_ask_each_other_for_ever_are_called_as_often_as_the_repeat_may() -> None:
    blocks = [block("pingPong", call("ping"), call("pong"))]
    steps: list[Step] = [{"name": "a", "block": "pingPong", "repeat": {"until": "false", "maxIterations": 5}}]
    driver = run_steps(steps, blocks=blocks)
    assert [made.id.path for made in driver.world.performed] == [
        f"a#{iteration}/{name}" for iteration in range(1, 6) for name in ("ping", "pong")
    ]
    assert ended(driver) == ("RunFailed", "StepFailed")


def test_iterations_are_retried_one_by_one_and_the_step_handles_what_is_left() -> None:
    def answer(call: Call) -> Any:
        return error("Unavailable") if call.id.path == "a#2" else {}

    repeat = {"until": "iteration == 3", "maxIterations": 3}
    driver = run_steps([call("a", repeat=repeat, retry={"limit": 1}, onError={"action": "Continue"})], answer)
    made = [(call.id.path, call.id.attempt) for call in driver.world.performed]
    assert made == [("a#1", 1), ("a#2", 1), ("a#2", 2)]
    assert ended(driver) == ("RunSucceeded", "Completed")


@pytest.mark.requirement("G1")
def test_a_repeat_in_a_retried_block_goes_on_with_the_iteration_that_failed() -> None:
    def answer(call: Call) -> Any:
        return error("Unavailable") if call.id.path == "a/r#2" and call.id.attempt == 1 else {}

    inner = block("inner", call("r", repeat={"until": "iteration == 2", "maxIterations": 2}))
    driver = run_steps([{"name": "a", "block": "inner", "retry": {"limit": 1}}], answer, blocks=[inner])
    made = [(call.id.path, call.id.attempt) for call in driver.world.performed]
    assert made == [("a/r#1", 1), ("a/r#2", 1), ("a/r#2", 2)]
    assert ended(driver) == ("RunSucceeded", "Completed")


# Bounds, denials, time.


@pytest.mark.parametrize(("allowed", "reason"), [(3, "Completed"), (2, "BudgetExceeded")])
def test_no_more_steps_start_than_the_run_may_start(allowed: int, reason: str) -> None:
    repeat = {"until": "iteration == 2", "maxIterations": 2}
    driver = run_steps([compute("a", 1), compute("b", 1, repeat=repeat)], limits={"steps": allowed})
    assert ended(driver)[1] == reason


@pytest.mark.parametrize(
    ("reason", "error_class", "run_reason"),
    [
        ("Forbidden", "Denied", "Denied"),
        ("Invalid", "Denied", "Denied"),
        ("BudgetExceeded", "BudgetExceeded", "BudgetExceeded"),
        ("LoopDetected", "Denied", "LoopDetected"),
        ("AuthorizerUnavailable", "Unavailable", "StepFailed"),
        ("Nondeterminism", "Denied", "Nondeterminism"),
    ],
)
def test_a_denial_is_the_step_s_error(reason: str, error_class: str, run_reason: str) -> None:
    driver = drive(plan_of([call("a")]), World(denied={"t.do": reason}))
    failure = step(driver.state, "a").error
    assert failure is not None
    assert (failure.error_class, failure.reason) == (error_class, reason)
    assert ended(driver) == ("RunFailed", run_reason)
    assert driver.world.performed == []
    assert driver.state.denials == 1


def test_an_unknown_outcome_ends_the_run_as_such() -> None:
    driver = run_steps([call("a", retry={"limit": 5})], failing("a", error_class="OutcomeUnknown"))
    assert ended(driver) == ("RunFailed", "OutcomeUnknown")


def test_calls_carry_the_earliest_deadline_around_them() -> None:
    steps = [{"name": "a", "block": "inner", "timeoutSeconds": 5}]
    driver = run_steps(steps, blocks=[block("inner", call("x", timeoutSeconds=60), call("y", timeoutSeconds=1))])
    start = driver.journal.of(EntryKind.STEP_STARTED, "a")[0].at
    x, y = driver.world.performed
    assert x.deadline_ms == start + 5000
    assert y.deadline_ms == driver.journal.of(EntryKind.STEP_STARTED, "a/y")[0].at + 1000


def test_a_block_past_its_deadline_times_out() -> None:
    retry = {"limit": 5, "backoffSeconds": 600, "maxBackoffSeconds": 600}
    steps = [{"name": "a", "block": "inner", "timeoutSeconds": 5}]
    driver = run_steps(
        steps, failing("a/x", error_class="Unavailable"), blocks=[block("inner", call("x", retry=retry))]
    )
    failure = step(driver.state, "a").error
    assert failure is not None
    assert failure.error_class == "Timeout"
    assert driver.journal.of(EntryKind.STEP_FAILED, "a")[0].at == driver.journal.entries[0].at + 5000
    assert ended(driver) == ("RunFailed", "StepFailed")


def test_a_run_past_its_deadline_closes() -> None:
    retry = {"limit": 1, "backoffSeconds": 600, "maxBackoffSeconds": 600}
    plan = plan_of([call("a", retry=retry)])
    driver = drive(plan, World(answer=failing("a", error_class="Unavailable")), timeout_seconds=30)
    assert ended(driver) == ("RunFailed", "Timeout")
    assert driver.state.finished_at == driver.journal.entries[0].at + 30_000
    assert step(driver.state, "a").phase == "Failed"


@pytest.mark.requirement("G4")
def test_a_cancelled_run_waits_for_its_open_calls_and_then_their_outcome_is_unknown() -> None:
    plan = plan_of([call("a"), call("b")])
    world = World(tools={"t": tool({"name": "do"})})
    driver = Driver(plan, world, accepted(plan), stop_after=4)
    with pytest.raises(Stopped):
        driver.run()
    driver.stop_after = None
    assert driver.journal.entries[-1].kind is EntryKind.CALL_INTENT
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "by alice"}))
    closing_at = driver.journal.now_ms
    driver.run()
    assert ended(driver) == ("RunCancelled", "Cancelled")
    assert driver.state.finished_at in (closing_at, closing_at + CLOSING_GRACE_MS)
    outcome = driver.journal.of(EntryKind.CALL_OUTCOME)[0]
    assert outcome.data["error"]["reason"] == "OutcomeUnknown"
    assert world.performed == []
    assert driver.state.terminal is not None
    assert driver.state.terminal.message == "by alice"


def test_a_closing_run_ends_as_soon_as_its_open_calls_have_answered() -> None:
    plan = plan_of([call("a"), call("b")])
    driver = Driver(plan, World(), accepted(plan), stop_after=4)
    with pytest.raises(Stopped):
        driver.run()
    driver.stop_after = None
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Timeout", "message": "late"}))
    assert what_next(plan, driver.state, driver.journal.now_ms, driver.world).records == ()
    data = {"index": "0.0.0", "status": "Succeeded", "result": {}, "durationMs": 1}
    driver.append(Draft(EntryKind.CALL_OUTCOME, Path("a"), 1, data))
    driver.run()
    assert ended(driver) == ("RunFailed", "Timeout")
    assert driver.state.finished_at == driver.journal.entries[0].at


def test_a_call_that_differs_from_the_recorded_one_ends_the_run() -> None:
    plan, other = (plan_of([{"name": "a", "tool": {"tool": "t", "function": f, "arguments": {}}}]) for f in "xy")
    world = World(tools={"t": tool({"name": "x", "effect": "Read"}, {"name": "y", "effect": "Read"})})
    driver = Driver(plan, world, accepted(plan), stop_after=4)
    with pytest.raises(Stopped):
        driver.run()
    resumed = Driver(other, world, driver.journal)
    resumed.run()
    assert ended(resumed) == ("RunFailed", "Nondeterminism")
    assert world.performed == []
