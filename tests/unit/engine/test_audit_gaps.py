"""What ends in another way than a call usually does is no gap in the audit; and what is missing is one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld, hang_once
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.runworld import uid_of
from tests.unit.engine.test_audit import RAW, audit, ran, said

from fairlead.engine.audit import AuditHead, verify_anchors, verify_run
from fairlead.engine.audit.records import record_hash
from fairlead.flow.calls import Call, Outcome
from fairlead.policy.permission import function_permission


@pytest.fixture
def world(tmp_path: Path) -> ChildWorld:
    return ChildWorld(tmp_path / "journal.db")


async def sound(world: ChildWorld, engine: Any) -> list[str]:
    chain = await audit(engine)
    return [str(problem) for problem in verify_run(uid_of(RAW), chain, said(world))]


async def test_a_call_that_may_not_be_made_again_after_a_crash_was_denied_and_is_no_gap(world: ChildWorld) -> None:
    world.declare(tool_step("a"))
    begun, hang = hang_once()
    world.servers.answer = hang
    await world.crash(begun, RAW)
    world.grants.denied = set(function_permission("desk", "read"))
    async with world.serving(RAW) as engine:
        await world.until(lambda: world.succeeded()[0] == "False")
        assert await sound(world, engine) == []


async def test_a_branch_that_was_cut_off_is_no_gap(world: ChildWorld) -> None:
    blocks = [
        {"name": "quick", "steps": [tool_step("q", "put")]},
        {"name": "slow", "steps": [tool_step("s")]},
    ]
    both = {"name": "both", "parallel": {"blocks": ["quick", "slow"], "join": {"mode": "Any"}}}
    world.declare(both, blocks=blocks)
    begun = asyncio.Event()

    async def answer(call: Call) -> Outcome:
        if call.function == "read":
            begun.set()
            await asyncio.Event().wait()
        await begun.wait()
        return Outcome(result={})

    world.servers.answer = answer
    async with world.serving() as engine:
        await asyncio.wait_for(engine.submit(RAW), 20)
        await world.until(lambda: world.succeeded()[0] == "True")
        await engine.store.durable()
        chain = await audit(engine)
        assert {record["type"] for record in chain if (record.get("where") or {}).get("path") == "both/slow/s"} == {
            "INTENT",
            "LATE",
        }
        assert await sound(world, engine) == []


async def test_a_run_that_its_object_ended_has_no_open_calls(world: ChildWorld) -> None:
    world.declare(tool_step("a", "send"))
    begun, hang = hang_once()
    world.servers.answer = hang
    await world.crash(begun, RAW)
    finished = {"type": "Finished", "status": "True", "reason": "Timeout", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    failed = finished | {"type": "Succeeded", "status": "False"}
    raw = RAW | {"status": {"conditions": [finished, failed]}}
    async with world.serving(raw) as engine:
        await world.until(lambda: engine.store.ended(uid_of(RAW)))
        await engine.store.durable()
        chain = await audit(engine)
        assert verify_run(uid_of(RAW), chain, engine.store.audit_head(uid_of(RAW))) == []
        assert [record["event"] for record in chain][-2:] == ["CallOutcome", "RunFailed"]


@pytest.mark.requirement("A49")
async def test_a_chain_that_is_gone_while_an_anchor_speaks_of_it_is_missed(world: ChildWorld) -> None:
    world.declare(tool_step("a"))
    _, found = await ran(world)
    assert [str(problem) for problem in verify_anchors(found, {}, kept_since_ms=0)] == [
        f"record 1: run {uid_of(RAW)} had 4 records when it was made, and there are none"
    ]
    assert verify_anchors(found, {}, kept_since_ms=found[0]["at"] + 1) == [], "old ones are let go"


@pytest.mark.requirement("A49")
@pytest.mark.parametrize("broken", [{}, {"n": 1}, {"n": "x", "previous": None}, {"n": 2, "previous": "x", "where": 7}])
async def test_a_record_without_its_parts_is_a_problem_and_no_error(world: ChildWorld, broken: dict[str, Any]) -> None:
    world.declare(tool_step("a"))
    chain, anchored = await ran(world)
    chain[1] = broken
    head = AuditHead(len(chain), record_hash(chain[-1]))
    assert verify_run(uid_of(RAW), chain, head) != []
    assert verify_anchors([broken], {}) != []
    assert verify_anchors(anchored, {}) == []
