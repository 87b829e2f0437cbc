"""Alarms ring once, at the time that was set last, and keep nothing of those that were cleared."""

from __future__ import annotations

from fairlead.engine.alarms import Alarms
from fairlead.flow.journal import RunUid


def test_the_time_that_was_set_last_rings_once() -> None:
    alarms, run = Alarms(), RunUid("a")
    alarms.set(run, 10)
    alarms.set(run, 20)
    assert (alarms.next_ms(), alarms.due(19), alarms.due(20), alarms.due(99)) == (20, [], [run], [])


def test_what_was_cleared_is_not_kept() -> None:
    alarms, first = Alarms(), RunUid("first")
    alarms.set(first, 1)
    for number in range(1000):
        alarms.set(RunUid(str(number)), 50)
        alarms.clear(RunUid(str(number)))
        assert alarms.next_ms() == 1
    assert len(alarms._heap) <= 2
    assert alarms.due(99) == [first]
