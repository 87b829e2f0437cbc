"""What was called within the last minute, by whichever run: counted from intents, read back after a restart.

One process decides and records without a pause in between, so that no more calls are let through than a rate allows,
however many ask at the same time.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairlead.engine.store import AuditPlace, Store
from fairlead.flow.calls import Call
from fairlead.flow.spending import Spend

WINDOW_MS = 60_000
_PAGE = 2000

_KINDS = {"Chat": "Model", "Embed": "Model", "Tool": "Tool"}


@dataclass(slots=True)
class Noted:
    """An intent: when (Unix ms), of what, and the tokens that it used or can come to."""

    at: int
    name: str
    tokens: int = 0
    recent: bool = True


class RecentCalls:
    """The intents of the last minute, by what was called."""

    def __init__(self, clock: Callable[[], int]) -> None:
        """Take Unix ms."""
        self._clock = clock
        self._calls: dict[tuple[str, str], deque[Noted]] = defaultdict(deque)
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)  # of the same, for a call costs a look

    def note(self, call: Call, tokens: int = 0) -> Noted:
        """Take note of an intent, now, and of the tokens that it can come to."""
        return self._note(call.kind.value, call.target, call.function, self._clock(), tokens)

    def settle(self, call: Call, noted: Noted, tokens: int) -> None:
        """Put what a call came to in the place of what it could."""
        if noted.recent:
            self._tokens[_KINDS.get(call.kind.value, ""), call.target] += tokens - noted.tokens
            noted.tokens = tokens

    def tokens(self, call: Call) -> int:
        """Return what the calls of the same Model used, or can come to, within the last minute."""
        self._forget(_KINDS.get(call.kind.value, ""), call.target)
        return self._tokens[_KINDS.get(call.kind.value, ""), call.target]

    def of(self, call: Call) -> dict[str, int]:
        """Return how often the same Tool (by function) or Model was called within the last minute."""
        key = _KINDS.get(call.kind.value, ""), call.target
        return dict(+self._counts[key]) if self._forget(*key) else {}

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
                    held = Spend.from_data(what.get("holds")).tokens
                    self._note(what["kind"], what["target"], what.get("function", ""), record["at"], held)

    def _note(self, kind: str, target: str, function: str, at_ms: int, tokens: int = 0) -> Noted:
        noted = Noted(at_ms, function or target, tokens)
        if kind in _KINDS:
            key = _KINDS[kind], target
            self._calls[key].append(noted)
            self._counts[key][noted.name] += 1
            self._tokens[key] += tokens
        return noted

    def _forget(self, kind: str, target: str) -> bool:
        """Let go of what is older than a minute; tell whether something is left."""
        key = kind, target
        known, oldest = self._calls.get(key), self._clock() - WINDOW_MS
        while known and known[0].at <= oldest:
            old = known.popleft()
            old.recent = False
            self._counts[key][old.name] -= 1
            self._tokens[key] -= old.tokens
        return bool(known)
