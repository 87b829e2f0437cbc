"""validate: schema, rules and judge over a value, and what a failed validation does."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, chat, drive, plan_of, step

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}
BLOCKS = [{"name": "mend", "steps": [{"name": "say", "transform": {"value": "$( error.message )"}}]}]


def run_validate(n: Any, *, answer: Any = None, **more: Any) -> Driver:
    definition = {"value": {"n": "$( input.n )"}, "schema": SCHEMA, **more}
    world = World(answer=answer) if answer else World()
    return drive(plan_of([{"name": "a", "validate": definition}], blocks=BLOCKS), world, {"n": n})


RULES = [{"expression": "output.n > input.n - 1 && output.n < 10", "message": "n is too large"}]


def test_what_passes_passes() -> None:
    driver = run_validate(5, rules=RULES)
    assert step(driver.state, "a").output == {"passed": True, "findings": []}


@pytest.mark.parametrize("n", ["x", 11])
def test_what_does_not_pass_fails_the_step_and_is_never_tried_again(n: Any) -> None:
    driver = run_validate(n, rules=RULES)
    failed = step(driver.state, "a").error
    assert failed is not None
    assert (failed.error_class, failed.reason) == ("Invalid", "ValidationFailed")
    assert "11" not in failed.message


def test_the_run_goes_on_with_the_findings_if_it_should() -> None:
    driver = run_validate(11, rules=RULES, onFailure={"action": "Continue"})
    assert step(driver.state, "a").output == {"passed": False, "findings": ["n is too large"]}


def test_a_block_runs_on_failure_and_sees_why() -> None:
    driver = run_validate(11, rules=RULES, onFailure={"block": "mend"})
    assert step(driver.state, "a/say").output == "n is too large"
    assert step(driver.state, "a").output == {"passed": False, "findings": ["n is too large"]}


def test_no_block_runs_when_it_passes() -> None:
    driver = run_validate(1, rules=RULES, onFailure={"block": "mend"})
    assert list(driver.state.steps) == ["a"]


@pytest.mark.parametrize(("percent", "passed"), [(50, True), (49, False)])
def test_a_judge_decides_what_schema_and_rules_let_pass(percent: int, passed: bool) -> None:
    answer = chat(f'{{"score": {percent}, "reason": "hm"}}')
    judge = {"model": "m", "criteria": "Good?"}
    driver = run_validate(1, answer=lambda call: answer, judge=judge, onFailure={"action": "Continue"})
    assert step(driver.state, "a").output["passed"] is passed


CLOSED = {**SCHEMA, "additionalProperties": False}


def test_what_passes_a_schema_without_text_is_handed_on() -> None:
    driver = run_validate(5, schema=CLOSED)
    assert step(driver.state, "a").output == {"passed": True, "findings": [], "value": {"n": 5}}
    driver = run_validate(11, schema=CLOSED, rules=RULES, onFailure={"action": "Continue"})
    assert step(driver.state, "a").output == {"passed": False, "findings": ["n is too large"], "value": None}
