"""Approvals in local mode: who is at the terminal decides for everybody, by `--approve STEP` and `--deny STEP`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any
from uuid import NAMESPACE_OID, uuid5

HERE = "at the terminal"


class LocalDesk:
    """Approvals in memory: those whose step was named are decided as soon as they are asked for."""

    def __init__(self, approve: Collection[str] = (), deny: Collection[str] = ()) -> None:
        """Take the paths of steps that are approved and denied."""
        self._words = dict.fromkeys(approve, "Approve") | dict.fromkeys(deny, "Deny")
        self._approvals: dict[str, Mapping[str, Any]] = {}

    def approval(self, name: str) -> Mapping[str, Any] | None:
        """Return an approval that was asked for by this process."""
        return self._approvals.get(name)

    async def create_approval(self, approval: Mapping[str, Any]) -> Mapping[str, Any]:
        """Keep an approval with its decisions; without any say what decides it."""
        name, spec = approval["metadata"]["name"], dict(approval["spec"])
        word = self._words.get(spec["step"])
        if word is not None:
            spec["decisions"] = [{"by": by, "decision": word, "reason": HERE} for by in _people(spec)]
        else:
            print(
                f"{spec['step']} waits for approval: {spec['message']}\n"
                f"  the run has left: {_left(spec.get('budgetLeft') or {})}\n"
                f"  end this with Ctrl-C and go on with --approve {spec['step']} or --deny {spec['step']}",
                file=sys.stderr,
            )
        metadata = {**approval["metadata"], "uid": str(uuid5(NAMESPACE_OID, name))}
        self._approvals[name] = {"metadata": metadata, "spec": spec}
        return self._approvals[name]

    async def refuses_forgery(self, approval: Mapping[str, Any]) -> bool:
        """Whoever can write here can do anything anyway."""
        return True


def _left(budget: Mapping[str, Any]) -> str:
    """Return what is left of a budget, in words."""
    named = (
        ("modelCalls", "model calls"),
        ("toolCalls", "tool calls"),
        ("tokens", "tokens"),
        ("costUSD", "US dollars"),
    )
    return ", ".join(f"{budget[field]} {words}" for field, words in named if field in budget)


def _people(spec: Mapping[str, Any]) -> list[str]:
    """Return as many of those who are asked as are needed; of a group nobody knows the members here."""
    asked = [*spec["from"].get("users", ())]
    asked += [f"{group} {number}" for group in spec["from"].get("groups", ()) for number in range(1, 11)]
    return asked[: spec["minApprovals"]]
