"""What a run has left of its limits. Pure."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import Limits
from fairlead.flow.runstate import Usage
from fairlead.flow.spending import format_usd, parse_usd


def left_of(limits: Limits, used: Usage) -> dict[str, Any]:
    """Return what a run may still use: {tokens, modelCalls, toolCalls}, and costUSD where that is bounded.

    What calls that are under way can come to is not left.
    """
    left: dict[str, Any] = {
        "tokens": max(0, limits.tokens - used.tokens - used.held_tokens),
        "modelCalls": max(0, limits.model_calls - used.model_calls),
        "toolCalls": max(0, limits.tool_calls - used.tool_calls),
    }
    if limits.cost_usd is not None:
        left["costUSD"] = format_usd(max(0, parse_usd(limits.cost_usd) - used.cost - used.held_cost))
    return left
