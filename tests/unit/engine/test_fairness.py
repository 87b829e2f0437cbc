"""Who is next: places go round the Workflows, and times ring once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.engine.alarms import Alarms
from fairlead.engine.fairness import FairQueue
from fairlead.flow.journal import RunUid

runs = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10**6)), unique_by=lambda run: run[1], max_size=40)


def drained(queue: FairQueue) -> list[RunUid]:
    found = []
    while (uid := queue.pop()) is not None:
        found.append(uid)
    return found


@given(runs)
def test_everybody_is_served_once_and_in_order_within_a_workflow(waiting: list[tuple[str, int]]) -> None:
    queue = FairQueue()
    for workflow, number in waiting:
        queue.push(workflow, RunUid(f"{workflow}{number}"))
    assert len(queue) == len(waiting)
    served = drained(queue)
    for lane in "abc":
        expected = [f"{workflow}{number}" for workflow, number in waiting if workflow == lane]
        assert [uid for uid in served if uid.startswith(lane)] == expected


keyed = st.lists(st.sampled_from(["a/x", "a/y", "a/z", "b/x"]), max_size=30)


@given(keyed, st.sets(st.sampled_from(["a/x", "a/y", "b/x"])))
def test_who_may_not_start_keeps_nobody_else_waiting(lanes: list[str], blocked: set[str]) -> None:
    def may_start(workflow: str, key: str) -> bool:
        return f"{workflow}/{key}" not in blocked

    queue = FairQueue()
    for number, lane in enumerate(lanes):
        workflow, key = lane.split("/")
        queue.push(workflow, RunUid(f"{lane}{number}"), key)
    served = []
    while queue.ready(may_start):
        served.append(queue.pop(may_start))
    free = [f"{lane}{number}" for number, lane in enumerate(lanes) if lane not in blocked]
    assert sorted(map(str, served)) == sorted(free)
    assert len(queue) == len(lanes) - len(free)


def test_places_go_round_the_keys_of_a_workflow() -> None:
    queue = FairQueue()
    for number, key in enumerate(["x", "x", "x", "y", "z"]):
        queue.push("a", RunUid(f"{key}{number}"), key)
    queue.push("b", RunUid("b"))
    assert drained(queue) == ["x0", "b", "y3", "z4", "x1", "x2"]


@pytest.mark.requirement("F44")
@given(runs)
def test_no_workflow_waits_for_more_than_one_run_of_each_other(waiting: list[tuple[str, int]]) -> None:
    queue = FairQueue()
    for workflow, number in waiting:
        queue.push(workflow, RunUid(f"{workflow}{number}"))
    served = drained(queue)
    for place, uid in enumerate(served):
        rest = served[place:]
        if len({other[0] for other in rest}) > 1:
            assert rest[1][0] != uid[0]


def test_who_left_the_line_is_not_called() -> None:
    queue = FairQueue()
    queue.push("a", RunUid("a1"))
    queue.push("a", RunUid("a2"))
    queue.remove("a", RunUid("a1"))
    queue.remove("b", RunUid("b1"))
    assert drained(queue) == ["a2"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 100)), max_size=30), st.integers(0, 100))
def test_only_the_last_time_of_a_run_rings_and_only_once(settings: list[tuple[str, int]], now_ms: int) -> None:
    alarms = Alarms()
    for uid, at_ms in settings:
        alarms.set(RunUid(uid), at_ms)
    last = dict(settings)
    assert alarms.next_ms() == min(last.values(), default=None)
    assert sorted(alarms.due(now_ms)) == sorted(uid for uid, at_ms in last.items() if at_ms <= now_ms)
    assert alarms.due(now_ms) == []
    assert alarms.next_ms() == min((at_ms for at_ms in last.values() if at_ms > now_ms), default=None)


def test_a_cleared_time_does_not_ring() -> None:
    alarms = Alarms()
    alarms.set(RunUid("a"), 5)
    alarms.clear(RunUid("a"))
    assert alarms.due(10) == [] and alarms.next_ms() is None
