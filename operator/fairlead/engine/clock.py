"""The engine's clock: Unix time that only goes forward, and that of the API server, by which everybody else goes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from fairlead.errors import KubeError

RETRY_SECONDS = 1.0
TOLERANCE_MS = 2_000
"""A clock that differs by less is taken for right: an answer's Date is a second old, and came a while ago."""

_PASSING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while a machine is suspended, so that a token does not end later for it."""

_log = logging.getLogger(__name__)


class SteadyClock:
    """Unix ms that jumps of the wall clock do not touch: the time at the start plus what passes from there."""

    def __init__(self) -> None:
        self._offset_ms = _wall_ms() - _passed_ms()

    def __call__(self) -> int:
        """Return the time."""
        return _passed_ms() + self._offset_ms

    def follow(self, other_ms: int) -> int:
        """Go by another clock that shows this now. Only before anybody has read the time: it may go back.

        Returns:
            How much too late the own one was, in ms; 0 if it was right.
        """
        late_ms = other_ms - self()
        if abs(late_ms) <= TOLERANCE_MS:
            return 0
        self._offset_ms += late_ms
        return late_ms


async def agree(clock: SteadyClock, ask: Callable[[], Awaitable[int]]) -> None:
    """Have the clock go by the API server's, once that is known: objects have their times from it.

    Args:
        clock: that nobody has read yet.
        ask: returns the API server's Unix ms, or raises KubeError.
    """
    while True:
        try:
            late_ms = clock.follow(await ask())
            break
        except KubeError as error:
            _log.warning("the API server's time is not known: %s", error)
            if not error.retryable:
                return
            await asyncio.sleep(RETRY_SECONDS)
    if late_ms:
        _log.warning("ClockSkew: the API server's clock counts, this node's is late by %.0f s", late_ms / 1000)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _passed_ms() -> int:
    return time.clock_gettime_ns(_PASSING) // 1_000_000
