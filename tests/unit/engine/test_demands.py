"""What a WorkflowRun's spec demands: whatever was seen, however often, becomes the entries that the journal lacks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import accepted, plan_of

from fairlead.api.run import WorkflowRunSpec
from fairlead.engine.demands import SIGNAL_BYTES, demanded, demands_nothing
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.state import RunState

PLAN = plan_of([{"name": "a", "transform": {"value": 1}}])


def spec(**more: Any) -> WorkflowRunSpec:
    return WorkflowRunSpec.model_validate({"workflow": "w", **more})


def after(*drafts: Draft) -> RunState:
    journal = accepted(PLAN)
    for draft in drafts:
        journal.append(draft)
    return journal.fold()


def go(data: Any = None) -> dict[str, Any]:
    return {"name": "go", "data": data, "by": "alice"}


def kinds(drafts: list[Draft]) -> list[EntryKind]:
    return [draft.kind for draft in drafts]


def test_signals_are_recorded_once_in_their_order() -> None:
    both = spec(signals=[go(1), go(2)])
    first = demanded(both, after())
    assert [(draft.data["index"], draft.data["data"]) for draft in first] == [(0, 1), (1, 2)]
    assert demanded(both, after(*first)) == []
    assert [draft.data["index"] for draft in demanded(both, after(first[0]))] == [1]


def test_a_signal_that_is_too_large_is_recorded_without_its_data() -> None:
    (draft,) = demanded(spec(signals=[go("x" * SIGNAL_BYTES)]), after())
    assert "data" not in draft.data
    assert "at most 16384" in draft.data["ignored"]


@pytest.mark.requirement("A34")
def test_a_signal_that_is_nested_too_deep_is_recorded_without_its_data() -> None:
    deep: Any = 1
    for _ in range(65):
        deep = [deep]
    (draft,) = demanded(spec(signals=[go(deep)]), after())
    assert draft.data == {"index": 0, "name": "go", "by": "alice", "ignored": "data: nested deeper than 64 levels"}
    (fitting,) = demanded(spec(signals=[go(deep[0])]), after())
    assert fitting.data["data"] == deep[0]


def test_a_pause_is_recorded_once_and_so_is_its_end() -> None:
    paused = Draft(EntryKind.PAUSED)
    assert kinds(demanded(spec(desiredState="Paused"), after())) == [EntryKind.PAUSED]
    assert demanded(spec(desiredState="Paused"), after(paused)) == []
    for state in ({"desiredState": "Running"}, {}):
        assert kinds(demanded(spec(**state), after(paused))) == [EntryKind.RESUMED]
        assert demanded(spec(**state), after()) == []


def test_a_cancellation_closes_once_and_a_closing_run_is_neither_paused_nor_resumed() -> None:
    (closing,) = demanded(spec(desiredState="Cancelled"), after())
    assert closing.kind is EntryKind.CLOSING
    closed = after(closing)
    for state in ("Cancelled", "Paused", "Running"):
        assert demanded(spec(desiredState=state), closed) == []
    assert kinds(demanded(None, after(), cancel="the WorkflowRun was deleted")) == [EntryKind.CLOSING]


def test_an_object_that_is_gone_resumes_nothing_by_itself() -> None:
    assert kinds(demanded(None, after(Draft(EntryKind.PAUSED)), cancel="gone")) == [EntryKind.CLOSING]


def test_a_parked_run_is_looked_at_again_only_when_its_object_asks_for_something() -> None:
    assert demands_nothing(spec())
    assert demands_nothing(spec(desiredState="Running"))
    assert not demands_nothing(spec(desiredState="Paused"))
    assert not demands_nothing(spec(signals=[go()]))


def test_a_step_is_no_demand() -> None:
    started = Draft(EntryKind.STEP_STARTED, Path("a"), 1, {})
    assert demanded(spec(), after(started)) == []
