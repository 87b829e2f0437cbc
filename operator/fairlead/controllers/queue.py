"""The work queue between events and reconcilers: what is asked often is done once, and never twice at a time.

Handlers add keys, workers take them. A key that comes due while a worker has it is parked and comes up again when that
worker is done: two never work on one key and no change is missed. The earliest due time wins; a failing key waits
longer each time, with jitter, and holds up nobody else.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 120.0


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a reconciliation is about; `kind` is the plural, for example `workflows`."""

    kind: str
    namespace: str
    name: str


class WorkQueue:
    """Keys with due times. Everything but `get` is synchronous: no await between check and change."""

    def __init__(self, *, clock: Callable[[], float], jitter: Callable[[], float] = random.random) -> None:
        """Start empty.

        Args:
            clock: monotonic seconds.
            jitter: a number from 0 to 1 that spreads a retry over the second half of its back-off.
        """
        self._clock = clock
        self._jitter = jitter
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._active: set[Key] = set()
        self._parked: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def add(self, key: Key, *, delay_seconds: float = 0.0) -> None:
        """Have the key reconciled in so many seconds, or earlier if that was asked before."""
        due = self._clock() + delay_seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    def take(self) -> Key | None:
        """Return a key that is due and that nobody works on, if there is one; the caller says `done` later."""
        while self._heap and self._heap[0][0] <= self._clock():
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) != due:
                continue  # an earlier entry took its place
            del self._due[key]
            if key in self._active:
                self._parked.add(key)
                continue
            self._active.add(key)
            return key
        return None

    def done(self, key: Key) -> None:
        """Give the key back after a success: its back-off starts anew."""
        self._failures.pop(key, None)
        self._release(key)

    def retry(self, key: Key, *, at_least_seconds: float = 0.0) -> float:
        """Give the key back after a failure and return in how many seconds it comes up again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        backoff = min(FIRST_BACKOFF_SECONDS * (1 << min(failures, 16)), LONGEST_BACKOFF_SECONDS)
        delay_seconds = max(at_least_seconds, backoff * (0.5 + 0.5 * self._jitter()))
        self._release(key)
        self.add(key, delay_seconds=delay_seconds)
        return delay_seconds

    async def get(self) -> Key:
        """Wait for a key that is due."""
        while (key := self.take()) is None:
            self._changed.clear()
            try:
                async with asyncio.timeout(self._until_next_seconds()):
                    await self._changed.wait()
            except TimeoutError:
                continue
        if self._heap:
            self._changed.set()  # another worker may have waited for a later key
        return key

    def waiting(self) -> dict[str, int]:
        """Return how many keys of each kind wait."""
        counts: dict[str, int] = {}
        for key in (*self._due, *self._parked):
            counts[key.kind] = counts.get(key.kind, 0) + 1
        return counts

    def overdue_seconds(self) -> float:
        """Return for how long the key that is due longest has waited; 0 when none is due."""
        return max(0.0, self._clock() - min(self._due.values(), default=float("inf")))

    def _release(self, key: Key) -> None:
        self._active.discard(key)
        if key in self._parked:
            self._parked.remove(key)
            self.add(key)

    def _until_next_seconds(self) -> float | None:
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None
