"""The wait between attempts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.workflow import Retry
from fairlead.flow.backoff import backoff_ms, jitter_key
from fairlead.flow.journal import Path, RunUid


def retry(**values: Any) -> Retry:
    return Retry.model_validate(values)


@pytest.mark.parametrize(("tries", "whole_ms"), [(1, 2000), (2, 6000), (3, 18000), (4, 20000), (10**9, 20000)])
def test_it_grows_to_its_bound(tries: int, whole_ms: int) -> None:
    wait = backoff_ms(retry(backoffSeconds=2, factor=3, maxBackoffSeconds=20), tries=tries, key="k")
    assert whole_ms / 2 <= wait <= whole_ms


def test_a_factor_of_one_keeps_it() -> None:
    assert backoff_ms(retry(backoffSeconds=2, factor=1), tries=10**9, key="k") <= 2000


def test_nothing_is_nothing() -> None:
    assert backoff_ms(retry(backoffSeconds=0), tries=10**9, key="k") == 0


@given(st.text(), st.integers(1, 50))
def test_the_same_attempt_waits_the_same_time(key: str, tries: int) -> None:
    assert backoff_ms(retry(), tries=tries, key=key) == backoff_ms(retry(), tries=tries, key=key)


def test_runs_that_fail_together_come_back_at_different_times() -> None:
    keys = [jitter_key(RunUid(f"run-{n}"), Path("a"), 1) for n in range(100)]
    assert len({backoff_ms(retry(), tries=1, key=key) for key in keys}) > 50


@pytest.mark.parametrize(("asked_ms", "at_least_ms"), [(90_000, 90_000), (1, 500)])
def test_the_longer_wait_wins(asked_ms: int, at_least_ms: int) -> None:
    assert backoff_ms(retry(), tries=1, key="k", retry_after_ms=asked_ms) >= at_least_ms
