"""Objects as large as a cluster takes them: each gets an answer, and what stands beside them is served as before."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.installation import SYSTEM, Fairlead, condition, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import Manifest, becomes, engine, outcome, policy, scene, tool, workflow

pytestmark = pytest.mark.cluster

MIB = 1024 * 1024
PLAIN = {"name": "a", "transform": {"value": "$( input )"}}


def steps(many: int, **step: Any) -> list[Manifest]:
    return [{"name": f"s{n}", "transform": {"value": n}} | step for n in range(many)]


def long_condition(characters: int) -> str:
    """Return an expression that is true, and nearly so long."""
    return " && ".join(["input.size == 1"] * (characters // len("input.size == 1 && ")))


def functions(many: int) -> list[Manifest]:
    return [{"name": f"f{n}", "effect": "Read", "description": "d" * 4096} for n in range(many)]


VALUES = workflow("values", *steps(30, transform={"value": "v" * (MIB // 32)}))
CONDITIONS = workflow("conditions", *steps(200, when=long_condition(4000)))
ANNOTATED = workflow("annotated", PLAIN) | {
    "metadata": {"name": "annotated", "annotations": {f"example.com/a{n}": "x" * 240 for n in range(1000)}}
}
TOOL = tool("wide", {"url": "https://tools.example/mcp"})
TOOL["spec"]["functions"] = functions(200)
WORKFLOWS = (VALUES, CONDITIONS, ANNOTATED)


@pytest.mark.requirement("A34")
def test_objects_as_large_as_they_can_be_disturb_nothing_beside_them(administrator: Kubectl, chart: Fairlead) -> None:
    with scene(administrator, engine(), policy("worker"), workflow("plain", PLAIN)) as team:
        becomes(team, "workflow", "plain", "Authorized")
        becomes(team, "engine", "default", "Ready")
        before = restarts(team)
        for large in (*WORKFLOWS, TOOL):
            team.create(large)
            assert served(team)
        too_long = create_run(team, "plain", text="x" * MIB)
        assert served(team)

        for one in WORKFLOWS:
            name = one["metadata"]["name"]
            becomes(team, "workflow", name, "Authorized")
            reason, message = outcome(finished(team, create_run(team, name, size=1)))
            assert reason == "Completed", f"{name}: {message}"
        until("the Tool says how it is", lambda: condition(team.get("tool", "wide"), "Reachable"))
        reason, message = outcome(finished(team, too_long))
        assert reason == "InvalidInput"
        assert "at most 262144" in message
        assert served(team)
        assert restarts(team) == before


def served(team: Kubectl) -> bool:
    return outcome(finished(team, create_run(team, "plain", size=1), timeout_seconds=60))[0] == "Completed"


def restarts(team: Kubectl) -> dict[str, int]:
    """Return how often the containers of the engine and of the operator have begun again."""
    pods = [team.get("pod", "fairlead-engine-0"), *team.within(SYSTEM).get("pods")["items"]]
    return {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods}
