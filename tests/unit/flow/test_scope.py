"""What expressions see from where they stand."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.flow.world import Driver, run_steps, step

from fairlead.flow.evaluation import PlaceEvaluator
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.labels import Label
from fairlead.flow.scope import Frame

Step = dict[str, Any]


def compute(name: str, value: Any, **more: Any) -> Step:
    return {"name": name, "transform": {"value": value}, **more}


def run_in_block(value: str, *before: Step, **more: Any) -> Any:
    """Return what an expression gives inside a block that is called after these steps."""
    block = {"name": "inner", "steps": [compute("x", value)]}
    driver = run_steps([*before, {"name": "call", "block": "inner", **more}], blocks=[block], given={"n": 5})
    return outcome(driver, "call")


def outcome(driver: Driver, path: str) -> Any:
    state = step(driver.state, path)
    return state.output if state.error is None else (state.error.reason, state.error.message)


MANY = list(range(2000))


@pytest.mark.parametrize("text", ["$( input.list )", "$( input['list'] )", "$( input.?list )", "$( (input.list) )"])
def test_what_is_only_named_has_no_bound_but_that_of_values(text: str) -> None:
    each = {"name": "each", "forEach": {"items": text, "maxParallel": 100}, "transform": {"value": "$( item )"}}
    steps = [compute("a", {"list": text}), each, compute("b", "$( steps.each.output )"), compute("c", f"all: {text}")]
    driver = run_steps(
        steps, given={"list": MANY}, output={"a": "$( steps.a.output.list )", "b": "$( steps.b.output )"}
    )
    assert driver.state.terminal is not None and driver.state.terminal.output == {"a": MANY, "b": MANY}
    assert step(driver.state, "c").output.startswith("all: [0,1,2,")


@pytest.mark.parametrize("value", ["a\0b", 2**63, [[[1]] * 3] * 400], ids=["NUL", "64 bits", "lists"])
def test_what_is_only_named_is_passed_on_as_it_is(value: Any) -> None:
    assert outcome(run_steps([compute("a", "$( input.v )")], given={"v": value}), "a") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("has(input.a)", True),
        ("true", True),
        ("int", ("ExpressionFailed", "transform.value: `int`: the value is a type, not JSON")),
        ("input.?nothing", None),
        ("input.?none", None),
    ],
)
def test_what_is_more_than_a_name_is_evaluated(text: str, value: Any) -> None:
    assert outcome(run_steps([compute("a", f"$( {text} )")], given={"a": 1, "none": None}), "a") == value


@pytest.mark.requirement("A37")
@pytest.mark.parametrize(
    "name", ["input", "input.list", "input.nothing", "steps.t", "steps.t.output", "steps.t.output.x", "run.name"]
)
def test_a_value_that_is_named_has_the_label_that_it_has_where_it_is_computed_with(name: str) -> None:
    t = {"name": "t", "tool": {"tool": "t", "function": "f"}}
    driver = run_steps([t], lambda call: {"x": "y"}, given={"list": [1]})
    state = driver.state
    assert state.accepted is not None
    state.steps["t"].label = Label(sensitivity=2)  # type: ignore[index]
    state.accepted = replace(state.accepted, label=Label(untrusted=True))

    def label(text: str) -> Label:
        evaluator = PlaceEvaluator(state, Frame(driver.plan.main))
        with suppress(ExpressionError):
            evaluator.render(text, "value")
        return evaluator.reads.label

    assert label(f"$( {name} )") == label(f"$( [{name}] )") == label(f"a $( {name} )")
    assert (label(f"$( {name} )") != Label()) == (name != "run.name")


PLACES: list[tuple[str, Step]] = [
    ("when: `input.n + 1.0`", {"when": "input.n + 1.0", "transform": {"value": 1}}),
    ("when: `input.n`: the expression must be true or false", {"when": "input.n", "transform": {"value": 1}}),
    ("transform.value.a[1]: `input.n + 1.0`", {"transform": {"value": {"a": [1, "$( input.n + 1.0 )"]}}}),
    ("transform.value: `input.n + 1.0`", {"transform": {"value": "a $( input.n + 1.0 ) b"}}),
    ("tool.arguments.t: `input.nope`", {"tool": {"tool": "t", "function": "f", "arguments": {"t": "$( input.nope )"}}}),
    ("workflow.input.t: `input.nope`", {"workflow": {"workflow": "w", "input": {"t": "$( input.nope )"}}}),
    ("generate.prompt: `input.nope`", {"generate": {"model": "m", "prompt": "$( input.nope )"}}),
    ("agent.prompt: `input.nope`", {"agent": {"model": "m", "prompt": "$( input.nope )", "tools": []}}),
    (
        "route.value: `input.nope`",
        {"route": {"value": "$( input.nope )", "choices": [{"name": "a"}], "otherwise": "a"}},
    ),
    (
        "route.choices[1].when: `input.nope`",
        {"route": {"value": "x", "choices": [{"name": "a"}, {"name": "b", "when": "input.nope"}], "otherwise": "a"}},
    ),
    ("validate.value: `input.nope`", {"validate": {"value": "$( input.nope )"}}),
    (
        "rules[1]: `output.nope`",
        {
            "validate": {
                "value": 1,
                "rules": [{"expression": "true", "message": "m"}, {"expression": "output.nope", "message": "m"}],
            }
        },
    ),
    ("wait.until: `input.nope`", {"wait": {"until": "$( input.nope )"}}),
    ("forEach.items: `input.nope`", {"forEach": {"items": "$( input.nope )"}, "transform": {"value": 1}}),
    (
        "repeat.until: `output.nope`",
        {"repeat": {"until": "output.nope", "maxIterations": 3}, "transform": {"value": {}}},
    ),
    ("approval.message: `input.nope`", {"approval": {"message": "$( input.nope )", "from": {"users": ["a"]}}}),
]


@pytest.mark.parametrize(("message", "definition"), PLACES, ids=[message for message, _ in PLACES])
def test_an_error_says_in_which_field_and_expression(message: str, definition: Step) -> None:
    driver = run_steps([{"name": "a", **definition}], given={"n": 2})
    assert outcome(driver, "a")[1].startswith(message)
    assert driver.state.terminal is not None
    assert driver.state.terminal.message.partition("ExpressionFailed: ")[2].startswith(message)


def test_the_error_of_an_output_says_whose_it_is_and_an_expression_is_cut() -> None:
    long = "input.nope + " + "'a long text' + " * 20 + "''"
    driver = run_steps([compute("a", 1)], given={}, output={"x": f"$( {long} )"})
    assert driver.state.terminal is not None
    assert driver.state.terminal.message == (
        f"Invalid/ExpressionFailed: spec.output.x: `{long[:120]}...`: there is no 'nope'"
    )
    blocks = [{"name": "inner", "steps": [compute("x", 1)], "output": ["$( input.nope )"]}]
    driver = run_steps([{"name": "a", "block": "inner"}], blocks=blocks, given={})
    assert outcome(driver, "a")[1] == "block inner: output[0]: `input.nope`: there is no 'nope'"


def test_the_nearest_step_of_a_name_is_meant() -> None:
    block = {"name": "inner", "steps": [compute("n", 2), compute("x", "$( steps.n.output )")]}
    driver = run_steps([compute("n", 1), {"name": "call", "block": "inner"}], blocks=[block])
    assert step(driver.state, "call").output == 2


def test_a_block_s_steps_are_not_seen_from_outside() -> None:
    block = {"name": "inner", "steps": [compute("x", 1)]}
    driver = run_steps([{"name": "call", "block": "inner"}, compute("a", "$( steps.x.output )")], blocks=[block])
    assert outcome(driver, "a")[0] == "ExpressionFailed"


def test_a_step_has_output_phase_error_and_attempts() -> None:
    value = "$( [steps.a.output, steps.a.phase, steps.a.attempts, steps.a.error] )"
    assert run_in_block(value, compute("a", "$( input.n )")) == [5, "Succeeded", 1, None]


def test_a_step_that_did_not_start_is_pending() -> None:
    driver = run_steps([compute("a", "$( steps.b.phase )"), compute("b", 1)])
    assert step(driver.state, "a").output == "Pending"


@pytest.mark.parametrize("name", ["iteration", "previous", "error", "output"])
def test_what_does_not_exist_here_is_not_in_scope(name: str) -> None:
    reason, message = run_in_block(f"$( {name} )")
    assert reason == "ExpressionFailed"
    assert name in message


def test_the_innermost_loop_is_meant() -> None:
    once = {"until": "true", "maxIterations": 9}
    thrice = {"until": "iteration == 3", "maxIterations": 9}
    blocks = [
        {"name": "outer", "steps": [{"name": "o", "block": "inner", "repeat": once}]},
        {"name": "inner", "steps": [compute("x", "$( [iteration, previous] )")]},
    ]
    driver = run_steps([{"name": "a", "block": "outer", "repeat": thrice}], blocks=blocks)
    assert step(driver.state, "a").output == [1, None]


def test_an_onerror_block_s_blocks_see_the_error_too() -> None:
    blocks = [
        {"name": "outer", "steps": [{"name": "o", "block": "inner"}]},
        {"name": "inner", "steps": [compute("x", "$( error.reason )")]},
    ]
    steps = [compute("a", "$( input.missing )", onError={"block": "outer"})]
    driver = run_steps(steps, blocks=blocks, given={})
    assert step(driver.state, "a").output == "ExpressionFailed"
