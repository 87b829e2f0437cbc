"""wait: for some time, until a time, for a signal; without a call and without anybody who looks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import START_MS, Driver, World, accepted, plan_of, run_steps, step

from fairlead.flow.journal import Draft, EntryKind

CLOSED = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def wait(name: str = "pause", **definition: Any) -> dict[str, Any]:
    return {"name": name, "wait": definition}


def for_signal(**more: Any) -> dict[str, Any]:
    return wait("ask", signal={"name": "answer", **more.pop("signal", {})}, **more)


def started(*steps: dict[str, Any], **spec: Any) -> Driver:
    """A run that has come as far as it can within its first ten seconds."""
    plan = plan_of(list(steps), **spec)
    driver = Driver(plan, World(), accepted(plan))
    driver.run(until_ms=START_MS + 10_000)
    return driver


def tell(driver: Driver, name: str, data: Any = None, *, by: str = "alice", **more: Any) -> None:
    """Let a signal arrive."""
    index = len(driver.state.signals)
    driver.append(Draft(EntryKind.SIGNAL, data={"index": index, "name": name, "data": data, "by": by, **more}))


@pytest.mark.requirement("G7")
def test_a_wait_ends_when_its_time_has_passed() -> None:
    driver = started(wait(seconds=60))
    assert step(driver.state, "pause").phase == "Waiting"
    assert step(driver.state, "pause").wake_at == START_MS + 60_000
    driver.run()
    assert step(driver.state, "pause").output == {"received": False, "data": None, "by": None}
    assert driver.journal.now_ms == START_MS + 60_000


def test_a_wait_until_a_time_evaluates_it_once() -> None:
    steps = [
        {"name": "when", "transform": {"value": "1970-01-01T00:30:00+00:00"}},
        wait(until="$( steps.when.output )"),
    ]
    driver = started(*steps)
    assert step(driver.state, "pause").wake_at == 1_800_000
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"
    inputs = [entry.data["value"] for entry in driver.journal.of(EntryKind.EVALUATED, "pause")]
    assert inputs == [1_800_000]


def test_a_time_that_has_passed_is_not_waited_for() -> None:
    assert run_steps([wait(until="1970-01-01T00:00:01Z")]).journal.now_ms == START_MS


@pytest.mark.parametrize(
    "until",
    [
        "$( 'tomorrow' )",
        pytest.param("9999-12-31T23:59:59-12:00", marks=pytest.mark.requirement("A34")),
        pytest.param("0001-01-01T00:00:00+12:00", marks=pytest.mark.requirement("A34")),
    ],
)
def test_a_time_that_is_none_fails_the_step(until: str) -> None:
    driver = run_steps([wait(until=until)])
    error = step(driver.state, "pause").error
    assert error is not None
    assert error.error_class == "Invalid"
    assert "RFC 3339" in error.message


def test_a_signal_ends_the_wait_and_brings_its_data() -> None:
    driver = started(for_signal())
    assert step(driver.state, "ask").waits_for == "answer"
    tell(driver, "other", 1)
    tell(driver, "answer", {"n": 7}, by="bob")
    driver.run()
    assert step(driver.state, "ask").output == {"received": True, "data": {"n": 7}, "by": "bob"}
    assert [signal.taken for signal in driver.state.signals] == [False, True]


def test_a_signal_that_comes_early_is_kept() -> None:
    plan = plan_of([wait(seconds=5), for_signal()])
    driver = Driver(plan, World(), accepted(plan))
    tell(driver, "answer", "early")
    driver.run()
    assert step(driver.state, "ask").output["data"] == "early"


def test_each_wait_takes_a_signal_of_its_own() -> None:
    driver = started(for_signal(), wait("again", signal={"name": "answer"}))
    tell(driver, "answer", 1)
    driver.run(until_ms=START_MS + 20_000)
    assert step(driver.state, "again").phase == "Waiting"
    tell(driver, "answer", 2)
    driver.run()
    assert [step(driver.state, name).output["data"] for name in ("ask", "again")] == [1, 2]


def test_a_signal_that_does_not_fit_is_ignored_and_said_so() -> None:
    driver = started(for_signal(signal={"schema": CLOSED}))
    tell(driver, "answer", {"ok": "yes"})
    driver.run(until_ms=START_MS + 20_000)
    assert step(driver.state, "ask").phase == "Waiting"
    assert "ok" in step(driver.state, "ask").findings["0"][0]
    tell(driver, "answer", None, ignored="too large")
    tell(driver, "answer", {"ok": True})
    driver.run()
    assert step(driver.state, "ask").output["data"] == {"ok": True}


@pytest.mark.parametrize(
    ("on_timeout", "phase", "said"),
    [
        (None, "Failed", "no signal 'answer' came within 60 s"),
        ("Fail", "Failed", "no signal 'answer' came within 60 s"),
        ("Continue", "Succeeded", ""),
    ],
)
def test_a_signal_that_never_comes(on_timeout: str | None, phase: str, said: str) -> None:
    driver = run_steps([for_signal(timeoutSeconds=60, **({"onTimeout": on_timeout} if on_timeout else {}))])
    found = step(driver.state, "ask")
    assert found.phase == phase
    assert driver.journal.now_ms == START_MS + 60_000
    if said:
        assert found.error is not None
        assert (found.error.error_class, found.error.message) == ("Timeout", said)
    else:
        assert found.output == {"received": False, "data": None, "by": None}


def test_a_wait_without_a_time_ends_with_the_run() -> None:
    driver = run_steps([for_signal()])
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Timeout"


@pytest.mark.parametrize(
    "way",
    [
        {"route": {"value": "x", "choices": [{"name": "only", "when": "true", "block": "later"}]}},
        {"validate": {"value": 1, "schema": {"type": "string"}, "onFailure": {"block": "later"}}},
    ],
    ids=["route", "validate"],
)
def test_the_defaults_of_a_step_do_not_cut_the_block_that_it_runs(way: dict[str, Any]) -> None:
    blocks = [{"name": "later", "steps": [wait(seconds=600)]}]
    driver = run_steps([{"name": "a", **way}], defaults={"timeoutSeconds": 5, "retry": {"limit": 3}}, blocks=blocks)
    assert step(driver.state, "a").phase == "Succeeded"


def test_the_defaults_do_not_cut_a_wait() -> None:
    driver = run_steps([wait(seconds=600)], defaults={"timeoutSeconds": 5, "retry": {"limit": 3}})
    assert step(driver.state, "pause").phase == "Succeeded"


def test_an_iteration_waits_as_a_step_does() -> None:
    repeat = {"until": "iteration == 2", "maxIterations": 3}
    driver = run_steps([wait(seconds=30) | {"repeat": repeat}])
    assert driver.journal.now_ms == START_MS + 60_000
    assert step(driver.state, "pause").phase == "Succeeded"


def test_items_wait_at_the_same_time() -> None:
    items = {"items": [1, 2, 3], "as": "n", "maxParallel": 3}
    assert run_steps([wait(seconds=30) | {"forEach": items}]).journal.now_ms == START_MS + 30_000


def test_the_first_of_two_branches_cancels_the_wait_of_the_other() -> None:
    blocks = [{"name": "short", "steps": [wait(seconds=5)]}, {"name": "long", "steps": [wait(seconds=500)]}]
    steps = [{"name": "either", "parallel": {"blocks": ["short", "long"], "join": {"mode": "Any"}}}]
    driver = run_steps(steps, blocks=blocks)
    assert driver.journal.now_ms == START_MS + 5_000
    assert step(driver.state, "either/long/pause").phase == "Failed"
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"
