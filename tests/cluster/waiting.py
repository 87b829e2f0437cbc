"""Waiting on conditions.

Everything in this package that takes time is waited for here, so that nothing sleeps for a fixed time and
everything has a deadline that ends in a sentence.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.cluster.errors import ClusterError

T = TypeVar("T")


def until(
    condition: Callable[[], T | None],
    *,
    what: str,
    timeout_seconds: float,
    details: Callable[[], str] = lambda: "",
    interval_seconds: float = 0.05,
) -> T:
    """Ask until the answer is true, and return it.

    Args:
        condition: asked again and again; anything true ends the wait.
        what: completes the sentence "gave up waiting for ...".
        timeout_seconds: generous: it bounds a failure, it measures nothing.
        details: asked once, on failure, for what the reader needs to see (a log's end).
        interval_seconds: between two questions.

    Raises:
        ClusterError: the deadline passed.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > deadline:
            raise ClusterError(f"gave up waiting for {what} after {timeout_seconds:g} s\n{details()}".rstrip())
        time.sleep(interval_seconds)
