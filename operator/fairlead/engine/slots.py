"""How many calls a Model or Tool has in flight: one semaphore per object that limits its concurrency."""

from __future__ import annotations

import asyncio


class Slots:
    """The semaphores of all limited objects, by kind and name."""

    def __init__(self) -> None:
        self._slots: dict[tuple[str, str], tuple[int, asyncio.Semaphore]] = {}

    def of(self, kind: str, name: str, limit: int | None) -> asyncio.Semaphore | None:
        """Return the object's semaphore, None when it has no limit.

        A changed limit starts a new semaphore; calls that hold a slot of the old one finish outside the new count.
        """
        if limit is None:
            return None
        known = self._slots.get((kind, name))
        if known is None or known[0] != limit:
            known = self._slots[(kind, name)] = (limit, asyncio.Semaphore(limit))
        return known[1]
