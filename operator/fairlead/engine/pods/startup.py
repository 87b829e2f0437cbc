"""How long a step's pod may be unable to begin: what may pass is shown while it lasts, and ends the step after a while.

A node pool that grows, a quota that is used up and a registry that is away pass; nobody can know how long they take.
"""

from __future__ import annotations

from collections.abc import Callable

from fairlead.engine.pods.reading import Waits
from fairlead.flow.calls import CallError

STARTUP_SECONDS = 300
"""So long a pod may stay in one state in which it cannot begin."""

_SHARE = 0.9
"""Of the time of a step that has less: it then fails with why it did not begin, and not as one that took long."""


class Startup:
    """What stands in the way of one pod's begin, and since when this process has seen it."""

    def __init__(self, clock: Callable[[], int], *, seconds: float, tell: Callable[[str], None]) -> None:
        """Take the clock (Unix ms), how long the step may take from now on, and whom to tell what is in the way."""
        self._clock = clock
        self._tell = tell
        self._ends = clock() + int(seconds * 1000 * _SHARE)
        self._state: tuple[str, str] = ("", "")
        self._since = 0
        self._told = ""

    def over(self, waits: Waits | None) -> CallError | None:
        """Tell what is in the way, when that changes; return it when it has been there for too long.

        What seems to be over for a moment and comes back, as a helper that is started again and again, was never over.
        """
        said = f"{waits.error.reason}: {waits.error.message}".removesuffix(": ") if waits is not None else ""
        if said != self._told:
            self._told = said
            self._tell(said)
        if waits is None:
            return None
        now = self._clock()
        if waits.state != self._state:
            self._state, self._since = waits.state, now
        return waits.error if now >= min(self._since + STARTUP_SECONDS * 1000, self._ends) else None
