"""The promise of the engine: stopping and resuming after any prefix of the journal changes nothing that matters."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from tests.unit.flow.generated import SIGNAL, plans, world
from tests.unit.flow.world import Driver, Journal, Stopped, World, accepted

from fairlead.flow.calls import Call, CallKind
from fairlead.flow.journal import Draft, Entry, EntryKind
from fairlead.flow.next import CLOSING_GRACE_MS
from fairlead.flow.plan import Plan
from fairlead.flow.recover import recover
from fairlead.flow.state import RunState

REPEATABLE = ("read", "keyed")

examples = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
given_n = st.integers(0, 3)
seeds = st.integers(0, 2**20)
errors = st.sampled_from([0, 5, 25])


def begun(plan: Plan, n: int) -> Journal:
    """Return the journal of a run that was accepted and has been told something, fit for waits or not."""
    journal = accepted(plan, {"n": n}, inputLabel="Trusted/Internal")
    for index, data in enumerate([{"n": n, "word": "yes"}, "unfit", {"n": 1, "word": "no"}]):
        journal.append(Draft(EntryKind.SIGNAL, data={"index": index, "name": SIGNAL, "data": data, "by": "alice"}))
    return journal


def uninterrupted(plan: Plan, a_world: World, n: int) -> Driver:
    driver = Driver(plan, a_world, begun(plan, n))
    driver.run()
    return driver


def interrupted(plan: Plan, a_world: World, n: int, stop_after: int, *, late: bool = False) -> Journal:
    """Return the journal of a run whose process died when it had so many entries, or `late`, writing the next."""
    driver = Driver(plan, a_world, begun(plan, n), stop_after=stop_after, late=late)
    with suppress(Stopped):
        driver.run()
    return driver.journal


def essence(state: RunState) -> Any:
    """Return what a run came to, without times."""
    steps = {
        path: (step.phase, step.attempt, step.output, step.error, step.iteration, step.tokens)
        for path, step in state.steps.items()
    }
    assert state.terminal is not None
    return steps, state.terminal, state.usage, state.denials


def effects(a_world: World) -> set[tuple[str, str, str]]:
    return set(a_world.effects())


@examples
@given(plans(), given_n, seeds, errors, st.data())
@pytest.mark.requirement("G1", "G2")
def test_stopping_and_resuming_changes_neither_state_nor_effects(
    plan: Plan, n: int, seed: int, errors_percent: int, data: st.DataObject
) -> None:
    whole = uninterrupted(plan, world(seed, errors_percent=errors_percent), n)
    event(whole.state.terminal.reason if whole.state.terminal else "open")
    _nothing_ran_twice(whole)
    for stop_after in _cuts(whole.journal, data):
        again = world(seed, errors_percent=errors_percent)
        journal = interrupted(plan, again, n, stop_after, late=data.draw(st.booleans(), label="late"))
        unknown = recover(journal.fold())
        resumed = Driver(plan, again, journal)
        resumed.run()
        _nothing_ran_twice(resumed)
        if unknown:
            _ended_as_unknown(resumed, len(unknown))
        else:
            assert essence(resumed.state) == essence(whole.state)
            assert effects(again) == effects(whole.world)


@examples
@given(plans(functions=REPEATABLE), given_n, seeds, errors)
@pytest.mark.requirement("G1", "G2")
def test_dying_after_every_entry_changes_nothing_where_calls_may_repeat(
    plan: Plan, n: int, seed: int, errors_percent: int
) -> None:
    whole = uninterrupted(plan, world(seed, errors_percent=errors_percent), n)
    again, journal = world(seed, errors_percent=errors_percent), begun(plan, n)
    while not journal.fold().terminal:
        with suppress(Stopped):
            Driver(plan, again, journal, stop_after=len(journal.entries) + 1).run()
    assert journal.entries == whole.journal.entries
    assert journal.fold() == whole.state
    assert effects(again) == effects(whole.world)


@examples
@given(plans(cleaning=False), given_n, seeds, errors, st.data())
@pytest.mark.requirement("G4")
def test_a_run_that_is_cancelled_anywhere_starts_nothing_more_and_ends(
    plan: Plan, n: int, seed: int, errors_percent: int, data: st.DataObject
) -> None:
    whole = uninterrupted(plan, world(seed, errors_percent=errors_percent), n)
    again = world(seed, errors_percent=errors_percent)
    stop_after = data.draw(st.integers(1, len(whole.journal.entries) - 1), label="cancelled after")
    journal = interrupted(plan, again, n, stop_after)
    journal.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "by alice"}))
    performed, closed_ms, before = len(again.performed), journal.now_ms, len(journal.entries)
    driver = Driver(plan, again, journal)
    driver.run()
    after = {entry.kind for entry in journal.entries[before:] if not _said_by_people(entry)}
    assert after <= {EntryKind.CALL_OUTCOME, EntryKind.RUN_CANCELLED}
    assert len(again.performed) == performed
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Cancelled"
    assert journal.now_ms <= closed_ms + CLOSING_GRACE_MS
    assert all(step.phase in ("Succeeded", "Failed", "Skipped") for step in driver.state.steps.values())


def _said_by_people(entry: Entry) -> bool:
    """Tell whether people decided, which they may while an open call has its grace. What expires is the core's word."""
    return entry.kind is EntryKind.APPROVAL_DECIDED and bool(entry.data["by"])


def _cuts(journal: Journal, data: st.DataObject) -> list[int]:
    return sorted(data.draw(st.sets(st.integers(1, len(journal.entries)), min_size=1, max_size=6), label="cuts"))


def _chosen_and_keyless(driver: Driver, call: Call) -> bool:
    """Tell whether an agent or a container chose to make a call that may not be made twice."""
    effect, keyed = driver.world.effect(call)
    return call.nth is not None and effect != "Read" and not keyed


def _nothing_ran_twice(driver: Driver) -> None:
    children = [call.id for call in driver.world.performed if call.kind is CallKind.WORKFLOW]
    assert len(children) == len(set(children))
    keyless = [effect for effect in driver.world.effects() if effect[2] == "t.write"]
    assert len(keyless) == len(set(keyless))
    asked = {(call.id.path, call.id.attempt) for call in driver.world.performed if _chosen_and_keyless(driver, call)}
    assert len(asked) == len({path for path, _ in asked}), "an agent or container went on after what it may not repeat"
    succeeded: set[str] = set()
    for entry in driver.journal.entries:
        assert not (entry.kind is EntryKind.STEP_STARTED and entry.path in succeeded)
        if entry.kind is EntryKind.STEP_SUCCEEDED:
            succeeded.add(entry.path)


def _ended_as_unknown(driver: Driver, count: int) -> None:
    outcomes = driver.journal.of(EntryKind.CALL_OUTCOME)
    unknown = [entry for entry in outcomes if entry.data.get("error", {}).get("reason") == "OutcomeUnknown"]
    assert len(unknown) == count
    assert driver.state.terminal is not None
