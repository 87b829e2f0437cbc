"""What was called within the last minute, by whichever run: counted from intents, read back after a restart.

One process decides and records without a pause in between, so that no more calls are let through than a rate allows,
however many ask at the same time.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any

from fairlead.engine.store import AuditPlace, Store
from fairlead.flow.calls import Call, CallKind

WINDOW_MS = 60_000
_PAGE = 2000

_KINDS = {"Chat": "Model", "Embed": "Model", "Tool": "Tool"}


class RecentCalls:
    """The intents of the last minute, by what was called."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """Take Unix ms."""
        self._clock = clock
        self._calls: dict[tuple[str, str], deque[tuple[int, str]]] = defaultdict(deque)
        self._counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # of the same, for a call costs a look

    def note(self, call: Call) -> None:
        """Take note of an intent, now."""
        self._note(call.kind.value, call.target, call.function, self._clock())

    def of(self, call: Call) -> dict[str, int]:
        """Return how often the same Tool (by function) or Model was called within the last minute."""
        key = _KINDS.get(CallKind(call.kind).value, ""), call.target
        known, oldest = self._calls.get(key), self._clock() - WINDOW_MS
        while known and known[0][0] <= oldest:
            self._counts[key][known.popleft()[1]] -= 1
        return dict(+self._counts[key]) if known else {}

    async def read_back(self, store: Store) -> None:
        """Take over what an earlier process let through within the last minute.

        Raises:
            StoreError: the audit cannot be read.
        """
        after: AuditPlace = (self._clock() - WINDOW_MS, "", 0)
        while page := await store.audit_after(after, _PAGE):
            for place, raw in page:
                after = place
                record: dict[str, Any] = json.loads(raw)
                if record["type"] == "INTENT":
                    what = record["what"]
                    self._note(what["kind"], what["target"], what.get("function", ""), record["at"])

    def _note(self, kind: str, target: str, function: str, at_ms: int) -> None:
        if kind in _KINDS:
            key, name = (_KINDS[kind], target), function or target
            self._calls[key].append((at_ms, name))
            self._counts[key][name] += 1
