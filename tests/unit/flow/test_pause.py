"""Paused: nothing new begins, what is under way ends, the deadline goes on."""

from __future__ import annotations

import pytest
from tests.unit.flow.world import START_MS, Driver, World, accepted, plan_of, step

from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.next import what_next

STEPS = [
    {"name": name, "tool": {"tool": "t", "function": "f", "arguments": {}}} for name in ("first", "second", "third")
]


def paused(steps: list[dict[str, object]] | None = None, *, timeout_seconds: int = 3600) -> Driver:
    """A run that was paused before its first step."""
    plan = plan_of(steps or STEPS)
    driver = Driver(plan, World(), accepted(plan, timeout_seconds=timeout_seconds))
    driver.append(Draft(EntryKind.PAUSED))
    return driver


def test_a_paused_run_starts_nothing_until_it_is_resumed() -> None:
    driver = paused()
    following = what_next(driver.plan, driver.state, driver.journal.now_ms, driver.world)
    assert (following.records, following.calls) == ((), ())
    driver.append(Draft(EntryKind.RESUMED))
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"
    assert len(driver.world.performed) == 3


@pytest.mark.requirement("G4")
def test_a_paused_run_ends_at_its_deadline() -> None:
    driver = paused(timeout_seconds=60)
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Timeout"
    assert driver.world.performed == []
    assert driver.journal.now_ms == START_MS + 60_000


def test_a_wait_of_a_paused_run_ends_when_it_is_resumed() -> None:
    plan = plan_of([{"name": "nap", "wait": {"seconds": 60}}])
    driver = Driver(plan, World(), accepted(plan))
    driver.run(until_ms=START_MS + 1)
    driver.append(Draft(EntryKind.PAUSED))
    driver.journal.now_ms = START_MS + 90_000
    driver.run(until_ms=START_MS + 100_000)
    assert step(driver.state, "nap").phase == "Waiting"
    driver.append(Draft(EntryKind.RESUMED))
    driver.run()
    assert step(driver.state, "nap").phase == "Succeeded"
    assert driver.journal.now_ms == START_MS + 90_000


def test_a_paused_run_can_be_cancelled() -> None:
    driver = paused()
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "by alice"}))
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Cancelled"
