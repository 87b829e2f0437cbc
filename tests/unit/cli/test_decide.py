"""Decisions from the command line: on a cluster at the end of a list, in local mode by who is at the terminal."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fairlead.cli.access import ATTEMPTS, Access
from fairlead.cli.localapprovals import LocalDesk
from fairlead.errors import Conflict
from fairlead.kube.client import Kube
from fairlead.kube.types import APPROVALS

FIRST = {"by": "alice", "decision": "Approve", "reason": ""}
SAID = {"by": "bob", "decision": "Deny", "reason": "too dear"}


class FakeKube:
    """One Approval; `overtaken` says how often somebody else decides between our read and our write."""

    def __init__(self, overtaken: int) -> None:
        self.overtaken = overtaken
        self.decisions: list[dict[str, Any]] = []
        self.version = 1

    async def get(self, rt: Any, name: str, namespace: str) -> dict[str, Any]:
        read = {"metadata": {"resourceVersion": str(self.version)}, "spec": {"decisions": list(self.decisions)}}
        if self.overtaken:
            self.overtaken -= 1
            self.version += 1
            self.decisions.append(FIRST)
        return read

    async def patch(self, rt: Any, name: str, namespace: str, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "stale")
        self.decisions = body["spec"]["decisions"]


async def test_a_decision_goes_to_the_end_whoever_decides_meanwhile() -> None:
    kube = FakeKube(overtaken=2)
    await Access(cast(Kube, kube), "team").append(APPROVALS, "a", "decisions", SAID)
    assert kube.decisions == [FIRST, FIRST, SAID]


async def test_who_is_always_overtaken_is_told() -> None:
    with pytest.raises(Conflict):
        await Access(cast(Kube, FakeKube(overtaken=ATTEMPTS)), "team").append(APPROVALS, "a", "decisions", SAID)


def approval(**spec: Any) -> dict[str, Any]:
    asked = {"step": "sign", "message": "Go on?", "from": {"users": ["alice"], "groups": ["oncall"]}, "minApprovals": 1}
    return {"metadata": {"name": "a"}, "spec": asked | spec}


async def test_at_the_terminal_one_word_is_as_many_as_are_needed() -> None:
    made = await LocalDesk(approve=["sign"]).create_approval(approval(minApprovals=3))
    assert [one["by"] for one in made["spec"]["decisions"]] == ["alice", "oncall 1", "oncall 2"]
    denied = await LocalDesk(deny=["sign"]).create_approval(approval())
    assert [one["decision"] for one in denied["spec"]["decisions"]] == ["Deny"]


async def test_at_the_terminal_who_says_nothing_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    desk = LocalDesk(approve=["other"])
    made = await desk.create_approval(approval(budgetLeft={"tokens": 900, "costUSD": "0.25", "toolCalls": 2}))
    assert "decisions" not in made["spec"]
    assert desk.approval("a") == made
    told = capsys.readouterr().err
    assert "sign waits for approval: Go on?" in told
    assert "the run has left: 2 tool calls, 900 tokens, 0.25 US dollars\n" in told
    assert "--approve sign or --deny sign" in told
