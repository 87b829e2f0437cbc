"""A long run costs as much per step as a short one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, accepted, plan_of


class CountingDict(dict[Any, Any]):
    """Counts the look-ups."""

    count = 0

    def get(self, key: Any, default: Any = None) -> Any:
        self.count += 1
        return super().get(key, default)

    def __getitem__(self, key: Any) -> Any:
        self.count += 1
        return super().__getitem__(key)


def repeat(times: int) -> dict[str, Any]:
    return {"repeat": {"until": f"iteration == {times}", "maxIterations": times}}


def for_each(times: int) -> dict[str, Any]:
    return {"forEach": {"items": [*range(times)]}, "limits": {"tokens": 1}}


def for_each_at_once(times: int) -> dict[str, Any]:
    return {"forEach": {"items": [*range(times)], "maxParallel": 4}}


def cost(loop: dict[str, Any]) -> tuple[int, int]:
    """Return the look-ups and questions that a run of so many turns of a two-step block takes."""
    x = {"name": "x", "transform": {"value": 1}}
    y = {"name": "y", "tool": {"tool": "t", "function": "do", "arguments": {}}}
    inner = {"name": "inner", "steps": [x, y]}
    plan = plan_of([{"name": "a", "block": "inner", **loop}], blocks=[inner])
    driver = Driver(plan, World(), accepted(plan))
    steps, bodies = CountingDict(driver.state.steps), CountingDict(driver.state.bodies)
    driver.state.steps, driver.state.bodies = steps, bodies
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"
    return steps.count + bodies.count, driver.asked


@pytest.mark.parametrize("loop", [repeat, for_each, for_each_at_once])
def test_the_work_of_a_run_is_linear_in_its_steps(loop: Callable[[int], dict[str, Any]]) -> None:
    (few_lookups, few_asked), (many_lookups, many_asked) = cost(loop(67)), cost(loop(670))
    assert many_lookups <= 10.2 * few_lookups
    assert many_asked <= 10.2 * few_asked
