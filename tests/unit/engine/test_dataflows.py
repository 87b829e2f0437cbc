"""What may leak is told on the Workflow, and refused before a run begins where a Policy says so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import ChildWorld, entries
from tests.unit.engine.fakes import workflow
from tests.unit.engine.runworld import run_object
from tests.unit.flow.test_worst import BOTH, CUSTOMER, FETCH, TOOLS, send

from fairlead.api.policy import Policy
from fairlead.engine.dataflows import DataFlows, told
from fairlead.engine.policies import Did
from fairlead.flow.journal import EntryKind

LEAKS = (FETCH, CUSTOMER, send(BOTH))
SAYS = "spec.steps[2].tool: step 'mail' may send Confidential data from 'crm' after untrusted data from 'web'"


def ruled(static: str | None = "Enforce", *, mode: str = "Enforce") -> Policy:
    flow = {"untrustedToExternal": "Deny"} | ({"static": static} if static else {})
    spec = {"mode": mode, "rules": {"dataFlow": flow}}
    return Policy.model_validate({"metadata": {"name": "p"}, "spec": spec})


def world_with(tmp_path: Path, policy: Policy | None, *steps: Any) -> ChildWorld:
    world = ChildWorld(tmp_path / "journal.db")
    world.resources.tools = dict(TOOLS)
    world.declare(*steps, input={"trust": "Trusted"})
    if policy is not None:
        world.resources.policies["p"] = policy
    return world


@pytest.mark.requirement("A36")
async def test_a_run_that_could_leak_is_not_accepted_where_a_policy_says_so(tmp_path: Path) -> None:
    world = world_with(tmp_path, ruled(), *LEAKS)
    async with world.serving() as engine:
        end = await asyncio.wait_for(engine.submit(run_object()), 20)
    assert end.terminal is not None and end.terminal.reason == "InvalidWorkflow"
    assert end.terminal.message == f"DataFlowUnsafe: Policy p, rule dataFlow.static: {SAYS}"
    assert world.servers.asked == []


@pytest.mark.parametrize("policy", [None, ruled("Warn"), ruled(None), ruled(mode="Audit")])
async def test_else_it_begins_and_each_call_is_decided(tmp_path: Path, policy: Policy | None) -> None:
    world = world_with(tmp_path, policy, *LEAKS)
    async with world.serving() as engine:
        end = await asyncio.wait_for(engine.submit(run_object()), 20)
    assert end.accepted is not None
    assert end.terminal is not None
    assert end.terminal.reason == ("Denied" if policy is not None and policy.spec.mode != "Audit" else "Completed")


@pytest.mark.requirement("P3")
async def test_in_audit_mode_a_run_that_could_leak_begins_and_is_recorded_and_counted(tmp_path: Path) -> None:
    world, did = world_with(tmp_path, ruled(mode="Audit"), *LEAKS), list[tuple[str, Did]]()
    async with world.engine(on_rule=lambda policy, what: did.append((policy, what))) as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        (accepted,) = await entries(engine, run_object(), EntryKind.RUN_ACCEPTED)
    assert accepted.data["wouldDeny"] == [f"Policy p, rule dataFlow.static: {SAYS}"]
    assert did == [("p", Did.WOULD_DENY)], "the gate of this world counts elsewhere"


async def test_what_cannot_leak_begins(tmp_path: Path) -> None:
    world = world_with(tmp_path, ruled(), FETCH, send("$( steps.web.output )"))
    async with world.serving() as engine:
        end = await asyncio.wait_for(engine.submit(run_object()), 20)
    assert end.terminal is not None and end.terminal.reason == "Completed"


def test_it_is_looked_at_again_when_something_is_declared_otherwise(tmp_path: Path) -> None:
    world = world_with(tmp_path, None, *LEAKS)
    flows, declared = DataFlows(world.resources), world.resources.workflows["w"]
    assert told(flows.leaks(declared)) == SAYS
    del world.resources.tools["t"]
    assert flows.leaks(declared), "nobody said so"
    flows.changed()
    assert flows.leaks(declared) == ()
    assert flows.leaks(workflow(FETCH)) == ()
