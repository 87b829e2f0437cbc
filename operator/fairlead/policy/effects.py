"""What a call does at worst, as rules read it and as the journal has it. Pure."""

from __future__ import annotations

from fairlead.api.tool import Function
from fairlead.flow.calls import Call, CallKind


def effect_of(call: Call, function: Function | None) -> str:
    """Return the effect: a function's by its contract, of a child run anything, of all else none.

    A container reaches nothing but its own files, and a model only answers.
    """
    if call.kind is CallKind.WORKFLOW:
        return "Irreversible"
    return function.effect if function is not None else "Read"
