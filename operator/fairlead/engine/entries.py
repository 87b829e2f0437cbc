"""What journal entries say of calls that the gate decides: what is called, and what the audit tells of why."""

from __future__ import annotations

from typing import Any

from fairlead.api.reasons import DecisionReason
from fairlead.api.tool import Tool
from fairlead.engine.snapshots import Target
from fairlead.flow.calls import Call
from fairlead.flow.labels import written
from fairlead.policy.decide import called_function
from fairlead.policy.decision import Decision


def intended(call: Call, decision: Decision, target: Target, effect: str) -> dict[str, Any]:
    """Return the data that an intent and one that is sent again have in common."""
    return _known(call, decision, target) | {"digest": call.digest, "effect": effect} | _held(decision)


def denied(call: Call, decision: Decision, target: Target | None) -> dict[str, Any]:
    """Return the data of a denial."""
    data = _known(call, decision, target) | {
        "digest": "" if decision.reason is DecisionReason.MALFORMED else call.digest,
        "reason": decision.reason.value,
        "stage": int(decision.stage),
        "message": decision.message,
    }
    function = called_function(call, target) if isinstance(target, Tool) else None
    known = {"policy": decision.policy, "rule": decision.rule, "effect": function.effect if function else ""}
    loop = {"forEach": decision.loop[0], "limit": decision.loop[1]} if decision.loop[0] else {}
    return data | loop | {key: value for key, value in known.items() if value} | written(call.label)


def _known(call: Call, decision: Decision, target: Target | None) -> dict[str, Any]:
    """Return what is called by whom, and what the decision rests on; what is empty is left out."""
    data: dict[str, Any] = {"index": str(call.id.index), "kind": call.kind.value, "target": call.target}
    if call.function:
        data["function"] = call.function
    function = called_function(call, target) if isinstance(target, Tool) else None
    if function is not None:
        data["reach"] = function.reach or "External"
        if function.pin is not None:
            data["pin"] = function.pin
    if decision.rbac:
        data["rbac"] = decision.rbac
    if decision.approvals:
        data["approvals"] = [{"policy": one.policy, "rule": one.rule, "name": one.name} for one in decision.approvals]
    if call.pod is not None and call.pod.uid:
        data["pod"] = call.pod.uid
    return data


def _held(decision: Decision) -> dict[str, Any]:
    windows = {"windows": [list(window) for window in decision.windows]} if decision.windows else {}
    return {"holds": decision.holds.as_data()} | windows if decision.holds else {}
