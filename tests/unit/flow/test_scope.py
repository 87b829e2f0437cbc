"""What expressions see from where they stand."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import Driver, run_steps, step

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
