"""What calls to Models use up: tokens, and money as whole 10⁻¹² US dollars, so that sums are exact. Pure.

A call's `Spend` is held from its intent on, at the most that it can come to. Its outcome puts what it came to in the
place of that; when nobody knows what it came to, what was held is what it used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

USD = 10**12
"""One US dollar. A price of 0.000001 a million tokens is 1 a token."""


@dataclass(frozen=True, slots=True)
class Spend:
    """Tokens in and out, and 10⁻¹² US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0

    @property
    def tokens(self) -> int:
        """Return tokens in and out."""
        return self.input_tokens + self.output_tokens

    def __bool__(self) -> bool:
        return bool(self.input_tokens or self.output_tokens or self.cost)

    def __add__(self, other: Spend) -> Spend:
        return Spend(
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, self.cost + other.cost
        )

    def __sub__(self, other: Spend) -> Spend:
        return Spend(
            self.input_tokens - other.input_tokens, self.output_tokens - other.output_tokens, self.cost - other.cost
        )

    def as_data(self) -> dict[str, int]:
        """Return the journal's form; a call that costs nothing says nothing of costs."""
        tokens = {"inputTokens": self.input_tokens, "outputTokens": self.output_tokens}
        return tokens | ({"cost": self.cost} if self.cost else {})

    @classmethod
    def from_data(cls, data: Mapping[str, Any] | None) -> Spend:
        """Read the journal's form back."""
        data = data or {}
        return cls(data.get("inputTokens", 0), data.get("outputTokens", 0), data.get("cost", 0))


NOTHING = Spend()


class Window(NamedTuple):
    """A stretch of time in which a Policy's budget is shared. Times are ms; `start` is a multiple of the period."""

    policy: str
    period: int
    start: int

    @property
    def end(self) -> int:
        """Return the Unix ms at which the next one begins."""
        return self.start + self.period


def window_at(policy: str, period_seconds: int, now_ms: int) -> Window:
    """Return the window of a Policy that a moment is in."""
    period = period_seconds * 1000
    return Window(policy, period, now_ms - now_ms % period)


def parse_usd(text: str) -> int:
    """Return an amount of US dollars, such as "0.15", in units of 10⁻¹²."""
    return int(Decimal(text) * USD)


def format_usd(amount: int) -> str:
    """Return an amount of 10⁻¹² US dollars as a decimal number of dollars, exactly."""
    whole, part = divmod(amount, USD)
    return f"{whole}.{part:012d}".rstrip("0").rstrip(".")
