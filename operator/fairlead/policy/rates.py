"""How often something may be called in a minute, by all runs of the namespace together; more wait. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.spending import Spend
from fairlead.policy.decision import Breach

Rates = Mapping[str, int]
"""Calls within the last minute, from their intents: by function of the Tool that is called, or by the Model's name."""


def exceeded(call: Call, target: Tool | Model | None, rates: Rates) -> str:
    """Return which rate of the Tool or Model itself leaves no room for one more call now; "" for none."""
    limits = target.spec.limits if target is not None else None
    most = getattr(limits, "rate_per_minute", None) or getattr(limits, "requests_per_minute", None)
    made = sum(rates.values())
    if most is None or made < most:
        return ""
    return f"{made} of {most} calls of {type(target).__name__} {call.target} were made within a minute"


def tokens_exceeded(model: Model, minute_tokens: int, need: Spend) -> str:
    """Return why a Model's `tokensPerMinute` leaves no room for the call now; "" when it does."""
    most = model.spec.limits.tokens_per_minute if model.spec.limits is not None else None
    if most is None or minute_tokens + need.tokens <= most:
        return ""
    name, used = model.metadata.name, f"{minute_tokens} of {most} tokens"
    return f"{used} of Model {name} were used within a minute; this call can need {need.tokens}"


def too_large(model: Model, need: Spend) -> str:
    """Return why a Model's `tokensPerMinute` never has room for the call; "" when it may."""
    most = model.spec.limits.tokens_per_minute if model.spec.limits is not None else None
    if most is None or need.tokens <= most:
        return ""
    asks = f"{need.input_tokens} tokens in and {need.output_tokens} out"
    return f"Model {model.metadata.name} allows {most} tokens a minute; this call alone can need {asks}"


def rate_rules(call: Call, rates: Rates, policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield the `rules.limits` whose rate leaves no room for one more call now."""
    for policy in policies if call.kind is CallKind.TOOL else ():
        for index, limit in enumerate(policy.spec.rules.limits if policy.spec.rules else ()):
            if (
                limit.rate_per_minute is None
                or limit.tool != call.target
                or limit.function not in (None, call.function)
            ):
                continue
            made = rates.get(limit.function, 0) if limit.function else sum(rates.values())
            if made >= limit.rate_per_minute:
                what = f"{limit.tool}.{limit.function}" if limit.function else limit.tool
                said = f"{made} of {limit.rate_per_minute} calls of {what} were made within a minute"
                yield Breach(policy.metadata.name, f"limits[{index}]", said, enforced=policy.spec.mode != "Audit")
