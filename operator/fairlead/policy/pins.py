"""Pins: is a function still what somebody reviewed, and must it be? Pure.

A pin is the digest of the whole definition that the server lists for a function. Nothing of a definition is read here
or told: digests are compared, so that no text of a server reaches a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fairlead.api.policy import Policy
from fairlead.api.tool import Function
from fairlead.policy.decision import Breach


def drift(function: Function, digests: Mapping[str, str]) -> str:
    """Return what is wrong with a function's pin, "" if it fits or there is none.

    Args:
        function: the contract.
        digests: of all functions that the server lists; "" for one that it lists more than once.
    """
    if function.pin is None or digests.get(function.name) == function.pin:
        return ""
    if function.name not in digests:
        return f"the server does not list {function.name} any more"
    if not digests[function.name]:
        return f"the server defines {function.name} more than once"
    return f"the server defines {function.name} otherwise than it is pinned"


def pin_rules(function: Function | None, policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield the `rules.pins` that forbid to call a function because it has no pin; None for what is no function."""
    for policy in policies if function is not None and function.pin is None else ():
        if policy.spec.rules is not None and policy.spec.rules.pins == "Required":
            message = "the function has no pin; `fairlead pin` writes it once the definition was reviewed"
            yield Breach(policy.metadata.name, "pins", message, enforced=policy.spec.mode != "Audit")
