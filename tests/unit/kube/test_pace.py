from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.kube.pace import Backoff, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_at_once_and_what_follows_is_spread() -> None:
    bucket = TokenBucket(per_second=50, burst=3, clock=Clock())
    assert [bucket.reserve() for _ in range(5)] == pytest.approx([0, 0, 0, 0.02, 0.04])


def test_a_bucket_fills_again_but_not_beyond_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(per_second=10, burst=2, clock=clock)
    for _ in range(2):
        bucket.reserve()
    clock.now += 1000
    assert [bucket.reserve() for _ in range(3)] == pytest.approx([0, 0, 0.1])


def test_nobody_passes_while_the_server_wants_a_pause() -> None:
    clock = Clock()
    bucket = TokenBucket(per_second=10, burst=100, clock=clock)
    bucket.pause(5)
    assert bucket.reserve() == pytest.approx(5.1)
    clock.now += 6
    assert bucket.reserve() == 0


@pytest.mark.requirement("F16")
@given(st.lists(st.floats(0, 10), max_size=50), st.floats(1, 100), st.integers(1, 20))
def test_no_window_has_more_than_the_burst_and_the_rate(gaps: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_second=rate, burst=burst, clock=clock)
    passed = []
    for gap in gaps:
        clock.now += gap
        passed.append(clock.now + bucket.reserve())
    assert passed == sorted(passed)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - passed[first]) * rate + 1e-6


def test_waits_grow_to_a_bound_differ_and_start_small_after_a_success() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=8)
    waits = [backoff.next_seconds() for _ in range(50)]
    for number, wait in enumerate(waits):
        assert min(8, 2**number) / 2 <= wait <= min(8, 2**number)
    assert len(set(waits)) > 40
    backoff.succeeded()
    assert backoff.next_seconds() <= 1


@pytest.mark.requirement("F16")
def test_a_wait_is_no_shorter_than_the_server_asked_for() -> None:
    assert Backoff(first_seconds=1, longest_seconds=8).next_seconds(20) == 20
