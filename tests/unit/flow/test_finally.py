"""finally: a block that runs once, whatever happened, and changes nothing about how the run ended but for worse."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from tests.unit.flow.world import START_MS, Driver, Stopped, World, accepted, error, plan_of, step, tool

from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.next import CLOSING_GRACE_MS, FINALLY_MS

FUNCTIONS = ({"name": "work", "effect": "Irreversible"}, {"name": "clean", "effect": "Irreversible"})


def call(name: str, function: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "tool": {"tool": "t", "function": function, "arguments": {}}, **more}


def plan(*cleaning: dict[str, Any], **spec: Any) -> Any:
    steps = spec.pop("steps", [call("do", "work")])
    cleaning = cleaning or (call("close", "clean"),)
    return plan_of(steps, blocks=[{"name": "cleanup", "steps": list(cleaning)}], **{"finally": "cleanup"}, **spec)


def world(*failing: str) -> World:
    return World(
        answer=lambda request: error("ToolError") if request.function in failing else {"did": request.function},
        tools={"t": tool(*FUNCTIONS)},
    )


def run(a_plan: Any, a_world: World, **more: Any) -> Driver:
    driver = Driver(a_plan, a_world, accepted(a_plan, **more))
    driver.run()
    return driver


def end(driver: Driver) -> tuple[str, str]:
    assert driver.state.terminal is not None
    return driver.state.terminal.reason, driver.state.terminal.message


def performed(driver: Driver) -> list[str]:
    return [request.function for request in driver.world.performed]


def test_it_runs_after_a_success_and_the_output_stays() -> None:
    driver = run(plan(), world())
    assert end(driver) == ("Completed", "")
    assert performed(driver) == ["work", "clean"]
    assert driver.state.terminal is not None
    assert driver.state.terminal.output == {"did": "work"}
    assert "!/close" in driver.state.steps


def test_it_runs_after_a_failure_and_sees_the_error_and_the_steps() -> None:
    told = {"name": "told", "transform": {"value": {"why": "$( error.class )", "done": "$( steps.do.phase )"}}}
    driver = run(plan(told), world("work"))
    assert end(driver)[0] == "StepFailed"
    assert step(driver.state, "!/told").output == {"why": "ToolError", "done": "Failed"}


def test_error_is_null_when_all_went_well() -> None:
    driver = run(plan({"name": "told", "transform": {"value": "$( error == null )"}}), world())
    assert step(driver.state, "!/told").output is True


@pytest.mark.requirement("G4")
def test_it_runs_after_a_cancellation() -> None:
    a_plan = plan(steps=[{"name": "long", "wait": {"seconds": 900}}])
    driver = Driver(a_plan, world(), accepted(a_plan))
    driver.run(until_ms=START_MS + 1)
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "by alice"}))
    driver.run()
    assert end(driver) == ("Cancelled", "by alice")
    assert performed(driver) == ["clean"]


@pytest.mark.requirement("G4")
def test_it_runs_after_the_deadline_and_ends_within_its_own() -> None:
    slow = {"name": "slow", "wait": {"seconds": 600}}
    driver = run(plan(slow, steps=[{"name": "long", "wait": {"seconds": 900}}]), world(), timeout_seconds=60)
    reason, message = end(driver)
    assert reason == "Timeout"
    assert "finally: it did not finish within 30 s" in message
    assert driver.journal.now_ms <= START_MS + 60_000 + CLOSING_GRACE_MS + FINALLY_MS


def test_what_fails_in_it_fails_a_run_that_had_succeeded() -> None:
    reason, message = end(run(plan(), world("clean")))
    assert reason == "StepFailed"
    assert message == "finally: !/close: ToolError/ToolError: it went wrong"


def test_what_fails_in_it_is_told_beside_the_reason_of_a_run_that_had_failed() -> None:
    reason, message = end(run(plan(), world("work", "clean")))
    assert reason == "StepFailed"
    assert message.startswith("do: ToolError")
    assert "; finally: !/close: ToolError" in message


def test_its_steps_are_not_bound_by_the_limit_of_steps() -> None:
    driver = run(plan(steps=[call("one", "work"), call("two", "work")], limits={"steps": 1}), world())
    assert end(driver)[0] == "BudgetExceeded"
    assert performed(driver) == ["work", "clean"]


@pytest.mark.requirement("G1")
def test_it_goes_on_after_a_stop_and_does_not_begin_again() -> None:
    whole = run(plan(), world())
    for stop_after in range(1, len(whole.journal.entries)):
        a_plan, again = plan(), world()
        journal = accepted(a_plan)
        driver = Driver(a_plan, again, journal, stop_after=stop_after)
        with suppress(Stopped):
            driver.run()
        Driver(a_plan, again, journal).run()
        effects = [request.function for request in again.performed]
        assert effects.count("clean") <= 1
        assert effects.count("work") <= 1
        assert journal.fold().terminal is not None
