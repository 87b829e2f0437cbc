"""What a call to a Model can come to before it is made, and what it came to afterwards.

Before: no tokenizer makes more tokens than there are bytes in what is sent, and no answer is longer than what is asked
for. That holds whatever the server says later: it may report less than that, never more.
"""

from __future__ import annotations

from functools import lru_cache

from fairlead.api.model import Model, Price
from fairlead.engine.models import openai
from fairlead.flow.calls import Call, CallKind, Outcome
from fairlead.flow.spending import Spend, parse_usd

TEMPLATE_TOKENS = 512
"""What a server's own template may add to a request: who it is, what day it is, how tools are called."""

PER_PRICE = 1_000_000


def most(call: Call, model: Model) -> Spend:
    """Return the most that a Chat or Embed call can come to."""
    _, body = openai.request(call, model)
    given = len(body) + TEMPLATE_TOKENS
    made = openai.longest_answer(call.request, model) if call.kind is CallKind.CHAT else 0
    return Spend(given, made, cost(model.spec.price, given, made))


def charged(outcome: Outcome, held: Spend, model: Model) -> Spend:
    """Return what a call came to: what the model reported, within what was held; all of that when nobody knows."""
    if not outcome.metered:
        return held
    given, made = min(outcome.input_tokens, held.input_tokens), min(outcome.output_tokens, held.output_tokens)
    paid = cost(model.spec.price, given, made, cached=min(outcome.cached_tokens, given))
    return Spend(given, made, min(paid, held.cost))


def cost(price: Price | None, given: int, made: int, *, cached: int = 0) -> int:
    """Return what tokens cost, in 10⁻¹² US dollars; nothing without a price."""
    if price is None:
        return 0
    of_cached = _per_token(price.cached_input if price.cached_input is not None else price.input)
    return (given - cached) * _per_token(price.input) + cached * of_cached + made * _per_token(price.output)


@lru_cache(maxsize=256)
def _per_token(usd_per_million: str) -> int:
    return parse_usd(usd_per_million) // PER_PRICE
