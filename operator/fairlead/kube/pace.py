"""How fast we may ask: a token bucket on writes, and exponential back-off with jitter after failures.

Both keep one misbehaving process, or a whole herd after an outage, from drowning the API server.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable


class TokenBucket:
    """At most `burst` at once and `per_second` in the long run; callers wait in order of arrival."""

    def __init__(self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        # The virtual time at which the bucket is full again: one number instead of tokens and a refill task.
        self._full_at = clock()

    async def take(self) -> None:
        """Take one token, waiting for it when there is none."""
        wait = self.reserve()
        if wait > 0:
            await asyncio.sleep(wait)

    def reserve(self) -> float:
        """Take one token, perhaps of the future, and return the seconds until it may be used."""
        now = self._clock()
        self._full_at = max(self._full_at, now) + 1 / self._per_second
        return max(0.0, self._full_at - now - self._burst / self._per_second)

    def pause(self, seconds: float) -> None:
        """Let nobody who comes from now on pass for so long: the server asked for it with Retry-After."""
        until = self._clock() + seconds + self._burst / self._per_second
        self._full_at = max(self._full_at, until)


class Backoff:
    """Growing random waits: between half and all of `first * 2**n` seconds, never more than `longest`."""

    def __init__(self, *, first_seconds: float, longest_seconds: float) -> None:
        self._first = first_seconds
        self._longest = longest_seconds
        self._failures = 0

    def succeeded(self) -> None:
        """Start small again."""
        self._failures = 0

    def next_seconds(self, at_least: float | None = None) -> float:
        """Return how long to wait now; at least `at_least` (a Retry-After) where one was given."""
        bound = min(self._longest, self._first * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(random.uniform(bound / 2, bound), at_least or 0.0)
