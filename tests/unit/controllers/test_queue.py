from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.controllers.queue import LONGEST_BACKOFF_SECONDS, Key, WorkQueue

A, B = Key("workflows", "team", "a"), Key("tools", "team", "b")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock, *, jitter: float = 1.0) -> WorkQueue:
    return WorkQueue(clock=clock, jitter=lambda: jitter)


def drained(work: WorkQueue) -> list[Key]:
    keys = []
    while (key := work.take()) is not None:
        keys.append(key)
    return keys


def test_what_is_asked_often_is_done_once() -> None:
    work = queue(Clock())
    for _ in range(5):
        work.add(A)
    assert drained(work) == [A]


def test_the_earliest_due_time_wins() -> None:
    clock = Clock()
    work = queue(clock)
    work.add(A, delay_seconds=60)
    work.add(A, delay_seconds=10)
    work.add(A, delay_seconds=30)
    assert work.take() is None
    clock.now += 10
    assert work.take() == A
    work.done(A)
    clock.now += 1000
    assert work.take() is None, "the later due times were superseded"


def test_two_workers_never_have_one_key_and_no_change_is_missed() -> None:
    work = queue(Clock())
    work.add(A)
    assert work.take() == A
    work.add(A)
    work.add(B)
    assert work.take() == B, "a busy key holds up nobody else"
    assert work.take() is None
    work.done(A)
    assert work.take() == A, "it changed while it was worked on"


def test_a_failing_key_waits_longer_each_time_and_starts_anew_after_a_success() -> None:
    clock = Clock()
    work = queue(clock)
    delays = []
    work.add(A)
    for _ in range(12):
        assert work.take() == A
        delays.append(work.retry(A))
        clock.now += delays[-1]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert delays[-1] == LONGEST_BACKOFF_SECONDS
    assert work.take() == A
    work.done(A)
    work.add(A)
    assert work.take() == A
    assert work.retry(A) == 0.5


def test_a_server_that_asks_for_patience_gets_it() -> None:
    work = queue(Clock(), jitter=0.0)
    work.add(A)
    assert work.take() == A
    assert work.retry(A, at_least_seconds=7.0) == 7.0


def test_jitter_spreads_a_retry_over_the_second_half_of_its_backoff() -> None:
    for jitter, expected in ((0.0, 0.25), (0.5, 0.375), (1.0, 0.5)):
        work = queue(Clock(), jitter=jitter)
        work.add(A)
        assert work.take() == A
        assert work.retry(A) == expected


async def test_get_waits_until_something_is_added() -> None:
    work = WorkQueue(clock=asyncio.get_running_loop().time)
    waiting = asyncio.create_task(work.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    work.add(A)
    assert await asyncio.wait_for(waiting, 5) == A


async def test_get_wakes_for_a_key_that_is_due_before_the_one_it_waited_for() -> None:
    work = WorkQueue(clock=asyncio.get_running_loop().time)
    work.add(B, delay_seconds=3600)
    waiting = asyncio.create_task(work.get())
    await asyncio.sleep(0)
    work.add(A, delay_seconds=0.001)
    assert await asyncio.wait_for(waiting, 5) == A


async def test_every_waiting_worker_gets_its_key() -> None:
    work = WorkQueue(clock=asyncio.get_running_loop().time)
    waiting = [asyncio.create_task(work.get()) for _ in range(4)]
    await asyncio.sleep(0)
    keys = [Key("workflows", "team", str(number)) for number in range(4)]
    for key in keys:
        work.add(key)
    assert sorted(await asyncio.wait_for(asyncio.gather(*waiting), 5)) == keys


def test_what_waits_is_counted_by_kind_and_age() -> None:
    clock = Clock()
    work = queue(clock)
    assert work.waiting() == {}
    assert work.overdue_seconds() == 0.0
    work.add(A)
    work.add(B, delay_seconds=60)
    clock.now += 5
    assert work.waiting() == {"workflows": 1, "tools": 1}
    assert work.overdue_seconds() == 5.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done", "retry", "pass"]), st.integers(0, 3))))
def test_whatever_happens_a_key_that_was_added_last_is_taken_in_the_end(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    work = queue(clock)
    busy: set[Key] = set()
    owed: set[Key] = set()
    for step, number in steps:
        key = Key("workflows", "team", str(number))
        if step == "add":
            work.add(key, delay_seconds=number)
            owed.add(key)
        elif step == "take" and (taken := work.take()) is not None:
            assert taken not in busy
            busy.add(taken)
            owed.discard(taken)
        elif step == "done" and key in busy:
            busy.remove(key)
            work.done(key)
        elif step == "retry" and key in busy:
            busy.remove(key)
            work.retry(key)
            owed.add(key)
        elif step == "pass":
            clock.now += number
    for key in busy:
        work.done(key)
    clock.now += 2 * LONGEST_BACKOFF_SECONDS
    assert set(drained(work)) == owed
