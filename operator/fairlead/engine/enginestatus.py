"""The engine's part of its Engine's status: the guardrails, which pod serves, and what ClusterPolicies did here.

A ClusterPolicy's own status is the operator's, which sums up what the engines say. The counts belong to the Engine
object: they go on from what its status says, so that a restart does not begin anew, and with another Engine they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fairlead.api.conditions import only_condition, timestamp
from fairlead.api.policy import Policy
from fairlead.api.reasons import GuardrailsReason
from fairlead.engine.approvals import UNGUARDED
from fairlead.engine.policies import COUNTED, Did
from fairlead.engine.status import StatusWriter
from fairlead.policy.clusterwide import PREFIX

MOST_COUNTED = 200
"""More ClusterPolicies than these do not bind a namespace."""

GUARDRAILS = "GuardrailsInstalled"
_NOTHING = {what.value: 0 for what in COUNTED}


class EngineObject(Protocol):
    """The namespace's Engine as last seen, and the Policies that bind it."""

    engine_uid: str
    engine_object: Mapping[str, Any]

    @property
    def policies(self) -> Mapping[str, Policy]:
        """Return Policies by name; that of a ClusterPolicy begins with its kind."""
        ...


class EngineReport:
    """Gathers what there is to say, and writes it."""

    def __init__(self, engine: EngineObject, statuses: StatusWriter, *, owner: str, clock: Callable[[], int]) -> None:
        """Take the Engine and who writes; `owner` is the pod that this process is, `clock` gives Unix ms."""
        self._engine = engine
        self._statuses = statuses
        self._owner = owner
        self._clock = clock
        self._guarded: bool | None = None
        self._counted_for = ""
        self._counts: dict[str, dict[str, Any]] = {}

    def guarded(self, refused: bool) -> bool:
        """Say whether the cluster refuses a forged decision; return whether there is an Engine to say it of."""
        self._guarded = refused
        self._mark()
        return bool(self._engine.engine_uid)

    def did(self, policy: Policy, what: Did) -> None:
        """Count what a rule of a ClusterPolicy did; without an Engine nobody can be told."""
        uid, counts = policy.metadata.uid, self._known()
        if what not in COUNTED or not self._engine.engine_uid:
            return
        if uid not in counts:
            if len(counts) >= MOST_COUNTED:
                self._forget_unbound()
            counts[uid] = {"name": policy.metadata.name.removeprefix(PREFIX), "uid": uid} | _NOTHING
        counts[uid][what.value] = counts[uid].get(what.value, 0) + 1
        self._mark()

    def _known(self) -> dict[str, dict[str, Any]]:
        if self._counted_for != self._engine.engine_uid:
            self._counted_for = self._engine.engine_uid
            self._counts = {row["uid"]: dict(row) for row in self._published().get("clusterPolicyCalls", ())}
        return self._counts

    def _forget_unbound(self) -> None:
        bound = {policy.metadata.uid for name, policy in self._engine.policies.items() if name.startswith(PREFIX)}
        for uid in self._counts.keys() - bound:
            del self._counts[uid]

    def _published(self) -> dict[str, Any]:
        """Return the engine's part as it stands."""
        status = self._engine.engine_object.get("status") or {}
        ours = {key: status[key] for key in ("owner", "clusterPolicyCalls") if key in status}
        return ours | {"conditions": [one for one in status.get("conditions", ()) if one["type"] == GUARDRAILS]}

    def _mark(self) -> None:
        if self._engine.engine_uid:
            self._statuses.mark(self._engine.engine_uid, "default", self._compose, published=self._published())

    def _compose(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        rows = sorted(self._known().values(), key=lambda row: str(row["name"]))
        status = {"conditions": self._condition(previous), "owner": self._owner}
        return status | ({"clusterPolicyCalls": [dict(row) for row in rows]} if rows else {})

    def _condition(self, previous: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return what is known of the guardrails; until this process has tried, what the one before it said."""
        if self._guarded is None:
            return list(previous.get("conditions", ()))
        reason = GuardrailsReason.VERIFIED if self._guarded else GuardrailsReason.NOT_INSTALLED
        message = "forged decisions are refused" if self._guarded else f"no approval counts: {UNGUARDED}"
        return only_condition(
            previous,
            GUARDRAILS,
            self._guarded,
            reason=reason.value,
            message=message,
            now=timestamp(self._clock()),
            observed_generation=self._engine.engine_object["metadata"].get("generation", 0),
        )
