"""The bench measures what there is: its workloads are Workflows that Fairlead takes, its decisions can be made."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.bench import decisions, local, workloads
from tests.bench.engines import NOWHERE, InstantTools, serving


async def test_every_decision_that_is_timed_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "TIMES", 3)
    assert (await decisions.decisions()).keys() == decisions.TITLES.keys()


async def test_every_workload_is_a_workflow_and_a_loop_makes_as_many_calls_as_it_says(tmp_path: Path) -> None:
    flows = [
        workloads.loop("long", local.MANY_STEPS),
        workloads.chain("chain", 20),
        workloads.for_each("each", 10),
        workloads.waiting("waiting"),
        workloads.parent("parent", "waiting"),
        workloads.approval("approval"),
        workloads.asking("asking"),
    ]
    loop, tools = workloads.loop("loop", 5), InstantTools()
    declared = [*flows, loop, workloads.tool({"url": NOWHERE}), workloads.model({"endpoint": ENDPOINT})]
    async with serving(tmp_path, [*declared, workloads.policy("waiting")], tools=tools) as bench:
        await bench.run("loop")
    assert len(tools.called_at) == 5


ENDPOINT = {"api": "OpenAIChat", "url": "https://models.example/v1", "model": "instant"}
