"""The engine's part of a Policy's status: is it enforced as it stands, and what did its rules do?

The counts go on from what the status says, so that a restart does not begin anew; what was counted in the seconds
before a crash is missing. What decides is never looked up here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from fairlead.api.conditions import only_condition, timestamp
from fairlead.api.policy import Policy
from fairlead.api.reasons import EnforcedReason
from fairlead.engine.seams import Resources
from fairlead.engine.status import StatusWriter
from fairlead.engine.store.windows import Spent
from fairlead.flow.spending import Window, format_usd
from fairlead.policy.budgets import windows_of
from fairlead.policy.clusterwide import PREFIX
from fairlead.policy.rules import is_stand_in, problems


class Did(StrEnum):
    """What a rule did about a call or a run, as `status.calls` names it."""

    DENIED = "denied"
    WOULD_DENY = "wouldDeny"
    ASKED = "asked"
    SPENT = "spent"  # of a window's budget; what, the store knows


COUNTED = (Did.DENIED, Did.WOULD_DENY, Did.ASKED)


class PolicyReports:
    """Counts what rules do, and writes it."""

    def __init__(
        self,
        resources: Resources,
        statuses: StatusWriter,
        *,
        clock: Callable[[], int],
        on_cluster_rule: Callable[[Policy, Did], None],
    ) -> None:
        """Take what is declared and who writes; `clock` gives Unix ms.

        `on_cluster_rule` is told what the rules of ClusterPolicies did: their status is not the engine's.
        """
        self._resources = resources
        self._statuses = statuses
        self._clock = clock
        self._on_cluster_rule = on_cluster_rule
        self._counts: dict[str, Counter[str]] = {}
        self.spent: Callable[[Window], Spent] = lambda window: Spent()

    def changed(self, name: str) -> None:
        """Take note that a Policy changed. A ClusterPolicy's copy has no status of its own."""
        self._mark(name)

    def did(self, name: str, what: Did) -> None:
        """Count what a rule of a Policy did."""
        policy = self._resources.policies.get(name)
        if policy is not None and name.startswith(PREFIX):
            self._on_cluster_rule(policy, what)
        elif policy is not None:
            self._counted(policy)[what] += what in COUNTED
            self._mark(name)

    def _counted(self, policy: Policy) -> Counter[str]:
        known = self._counts.get(policy.metadata.uid)
        if known is None:
            calls = policy.status.calls if policy.status is not None else None
            known = Counter(calls.model_dump(by_alias=True) if calls is not None else {})
            self._counts[policy.metadata.uid] = known
        return known

    def _mark(self, name: str) -> None:
        policy = self._resources.policies.get(name)
        if policy is None or name.startswith(PREFIX):
            return
        published = policy.status.model_dump(by_alias=True, exclude_none=True) if policy.status else {}
        ours: dict[str, Any] = {key: published[key] for key in ("calls", "window") if key in published}
        ours["conditions"] = [c for c in published.get("conditions", ()) if c["type"] == "Enforced"]

        def compose(previous: Mapping[str, Any]) -> dict[str, Any]:
            current = self._resources.policies.get(name, policy)
            windows = windows_of([current], self._clock())
            spent = {window: self.spent(window) for window in windows}
            now = timestamp(self._clock())
            return policy_status(current, self._counted(current), spent=spent, previous=previous, now=now)

        self._statuses.mark(policy.metadata.uid, name, compose, published=ours)


def policy_status(
    policy: Policy,
    counted: Mapping[str, int],
    *,
    spent: Mapping[Window, Spent],
    previous: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """Return all fields of a Policy's status that the engine owns.

    Args:
        policy: as it is enforced now: the last that was understood.
        counted: what its rules did.
        spent: what was used in the window that it is now, if it has any.
        previous: the engine's part as it stands; the transition time is kept from it.
        now: RFC 3339.
    """
    status, reason, message = _enforced(policy)
    conditions = only_condition(
        previous,
        "Enforced",
        status,
        reason=reason.value,
        message=message,
        now=now,
        observed_generation=policy.metadata.generation,
    )
    found: dict[str, Any] = {"conditions": conditions}
    for window, use in spent.items():
        ends, cost = timestamp(window.end), format_usd(use.cost)
        found["window"] = {"endsAt": ends, "tokens": use.tokens, "costUSD": cost, "runs": use.runs}
    return found | ({"calls": {what.value: counted.get(what, 0) for what in COUNTED}} if policy.spec.rules else {})


def _enforced(policy: Policy) -> tuple[bool, EnforcedReason, str]:
    if policy.spec.rules is None:
        return True, EnforcedReason.NO_RULES, "it grants, and forbids nothing"
    if is_stand_in(policy):
        return (
            False,
            EnforcedReason.NOT_UNDERSTOOD,
            "this engine does not understand it: every call that it binds is denied",
        )
    if found := problems(policy):
        message = f"{found[0].path}: {found[0].message}; every call that such a rule asks about is denied"
        return False, EnforcedReason.INVALID_RULES, message
    if policy.spec.mode == "Audit":
        return True, EnforcedReason.AUDITED, "what its rules would deny is recorded and happens"
    return True, EnforcedReason.ENFORCED, "its rules hold at every call"
