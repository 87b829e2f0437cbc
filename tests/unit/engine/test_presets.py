"""Presets: arguments that a Tool sets itself, that nobody who calls sees or sets, and that all who decide see."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.approvalworld import RULE, Asked, requested, ruled
from tests.unit.engine.fakes import tool_step
from tests.unit.engine.gateworld import World, make_tool, tool_call
from tests.unit.engine.test_gate_rules import rules
from tests.unit.engine.test_tools import FUNCTIONS, ledger_tool

from fairlead.api.tool import Tool
from fairlead.policy.contract import contract_problems

PRESET = {"name": "append", "effect": "Reversible", "preset": {"project": "SUPPORT"}}


async def test_the_server_gets_what_the_tool_sets(tmp_path: Path) -> None:
    functions = [one | ({"preset": {"key": "ours"}} if one["name"] == "append" else {}) for one in FUNCTIONS]
    async with ledger_tool(tmp_path, functions=functions) as (caller, _, _):
        assert (await caller.call("append")).result == {"key": "ours", "count": 1, "entry": 1}


@pytest.mark.parametrize("given", ["SUPPORT", "OTHER"])
async def test_nobody_who_calls_sets_it(given: str) -> None:
    world = World()
    world.tools["tickets"] = make_tool(functions=[PRESET])
    await world.make(tool_call("append", request={"arguments": {"project": given}}))
    assert world.dispatched == []
    assert (world.log.last()["reason"], world.log.last()["message"]) == (
        "Invalid",
        "arguments do not fit the contract: /project: the Tool sets it",
    )


@pytest.mark.parametrize(("project", "sent"), [("SUPPORT", 0), ("OTHER", 1)])
async def test_rules_read_what_is_sent(project: str, sent: int) -> None:
    world = World()
    world.tools["tickets"] = make_tool(functions=[PRESET | {"preset": {"project": project}}])
    world.policies = {"p": rules(calls=[{"name": "no", "when": "call.arguments.project == 'SUPPORT'"}])}
    await world.make(tool_call("append"))
    assert len(world.dispatched) == sent


async def test_people_see_what_is_sent(tmp_path: Path) -> None:
    world = Asked(tmp_path / "journal.db", tool_step("after", "send"))
    world.resources.policies = ruled(RULE)
    world.resources.tools["desk"] = _desk({"name": "send", "preset": {"to": "support@example.com"}})
    async with world.engine() as engine:
        ended = engine.submit(requested())
        (name,) = await world.asks(engine)
        assert world.people.objects[name]["spec"]["call"]["arguments"] == {"to": "support@example.com"}
        world.people.decide(name, "Deny")
        await asyncio.wait_for(ended, 20)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (PRESET, []),
        (
            PRESET | {"input": {"schema": {"properties": {"project": {}}, "required": ["project"]}}},
            [
                "spec.functions[0].preset.project: the Tool sets it: leave 'project' out of input.schema.properties",
                "spec.functions[0].preset.project: the Tool sets it: leave 'project' out of input.schema.required",
            ],
        ),
        (
            PRESET | {"idempotency": {"argument": "project"}},
            ["spec.functions[0].preset.project: the idempotency key is another one for each call"],
        ),
        (
            PRESET | {"input": {"schema": {"type": "objet"}}},
            ["spec.functions[0].input.schema: /type: is none of array, boolean, integer, null, number, object, string"],
        ),
    ],
)
def test_a_contract_that_cannot_be_right_is_told(function: dict[str, Any], problem: list[str]) -> None:
    assert [str(finding) for finding in contract_problems(_desk(function))] == problem


def _desk(function: dict[str, Any]) -> Tool:
    spec = {"mcp": {"url": "http://desk.example/mcp"}, "functions": [function]}
    return Tool.model_validate({"metadata": {"name": "desk", "namespace": "team"}, "spec": spec})
