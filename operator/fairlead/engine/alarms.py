"""When to look at which run again: one heap for all that waits, so that a wait costs no task."""

from __future__ import annotations

import heapq

from fairlead.flow.journal import RunUid


class Alarms:
    """At most one time per run; setting another replaces it."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, RunUid]] = []
        self._current: dict[RunUid, int] = {}

    def set(self, uid: RunUid, at_ms: int) -> None:
        """Ring for a run at this Unix ms."""
        self._current[uid] = at_ms
        heapq.heappush(self._heap, (at_ms, uid))

    def clear(self, uid: RunUid) -> None:
        """Do not ring for a run."""
        self._current.pop(uid, None)

    def due(self, now_ms: int) -> list[RunUid]:
        """Return the runs whose time has come, and forget their times."""
        found = []
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, uid = heapq.heappop(self._heap)
            if self._current.get(uid) == at_ms:
                del self._current[uid]
                found.append(uid)
        return found

    def next_ms(self) -> int | None:
        """Return the next time at which something rings, None if nothing does."""
        if len(self._heap) > 2 * len(self._current):  # mostly of times that were cleared or replaced
            self._heap = [(at_ms, uid) for uid, at_ms in self._current.items()]
            heapq.heapify(self._heap)
        while self._heap and self._current.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
