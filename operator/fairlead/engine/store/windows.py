"""What was used in the windows of Policies' budgets: rows that change in the transaction of an intent or an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairlead.flow.spending import Window

MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens, 10⁻¹² US dollars, and runs that began. What calls that are under way can come to is in it."""

    tokens: int = 0
    cost: int = 0
    runs: int = 0

    def plus(self, tokens: int, cost: int, runs: int) -> Spent:
        """Return the sum, within what a row can hold."""
        now = (self.tokens + tokens, self.cost + cost, self.runs + runs)
        return Spent(*(min(max(value, 0), MOST) for value in now))


class Windows:
    """The rows as they stand, committed or about to be."""

    def __init__(self, rows: Mapping[Window, Spent]) -> None:
        self._rows = dict(rows)

    def of(self, window: Window) -> Spent:
        """Return what was used in a window."""
        return self._rows.get(window, Spent())

    def add(self, window: Window, *, tokens: int = 0, cost: int = 0, runs: int = 0) -> Spent:
        """Change a window's row and return it."""
        row = self._rows[window] = self.of(window).plus(tokens, cost, runs)
        return row

    def forget(self, before_ms: int) -> None:
        """Let go of windows that ended before then."""
        self._rows = {window: row for window, row in self._rows.items() if window.end >= before_ms}
