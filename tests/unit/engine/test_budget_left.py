"""People are told what a run has left of its budgets when it asks them; that is no part of what they approve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.approvalworld import RULE, SIGN, Asked, requested, ruled
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import uid_of

from fairlead.flow.journal import EntryKind

LIMITS = {"tokens": 5000, "modelCalls": 7, "toolCalls": 5, "costUSD": "2.00"}
BUDGET = {"tokens": 4000, "toolCalls": 3, "costUSD": "0.50"}
LEFT = {"tokens": 4000, "modelCalls": 7, "toolCalls": 2, "costUSD": "0.5"}
"""One call of a tool was made."""


def asking(path: Path, *steps: dict[str, Any]) -> Asked:
    world = Asked(path / "journal.db", *steps)
    world.resources.workflows["w"] = workflow(*steps, limits=LIMITS)
    return world


@pytest.mark.parametrize("by", ["a step", "a rule"])
async def test_the_least_of_what_the_workflow_and_policies_leave_a_run_is_told(tmp_path: Path, by: str) -> None:
    world = asking(tmp_path, tool_step("first", "read"), SIGN if by == "a step" else tool_step("after", "send"))
    rules = [RULE] if by == "a rule" else []
    world.resources.policies = ruled(*rules, budgets={"run": BUDGET})
    raw = requested()
    async with world.engine() as engine:
        engine.submit(raw)
        (name,) = await world.asks(engine)
        assert world.people.objects[name]["spec"]["budgetLeft"] == LEFT
        entries = await engine.store.load(uid_of(raw))
        (asked,) = [entry for entry in entries if entry.kind is EntryKind.APPROVAL_REQUESTED]
        assert asked.data["spec"]["budgetLeft"] == LEFT, "who reads the journal knows what they were told"


async def test_what_has_no_bound_is_not_told_and_audit_mode_bounds_nothing(tmp_path: Path) -> None:
    world = Asked(tmp_path / "journal.db", SIGN)
    world.resources.policies = ruled(mode="Audit", budgets={"run": BUDGET})
    async with world.engine() as engine:
        engine.submit(requested())
        (name,) = await world.asks(engine)
        left = world.people.objects[name]["spec"]["budgetLeft"]
    assert left == {"tokens": 2_000_000, "modelCalls": 500, "toolCalls": 500}


async def test_an_approval_is_good_for_the_call_whatever_the_budget_has_left(tmp_path: Path) -> None:
    world = asking(tmp_path, tool_step("after", "send"))
    world.resources.policies = ruled(RULE)
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        digest = world.people.objects[name]["spec"]["digest"]
        world.resources.policies = ruled(RULE, budgets={"run": BUDGET})
        world.people.decide(name)
        await ended
    assert [call.function for call in world.sent] == ["send"]
    assert [obj["spec"]["digest"] for obj in world.people.objects.values()] == [digest]
