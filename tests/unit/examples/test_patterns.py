"""Every workflow pattern that the documentation lists runs in the engine and gives what its example says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.engine.childworld import ChildWorld
from tests.unit.engine.fakes import READY
from tests.unit.engine.runworld import World, run_object

from fairlead.api.workflow import Workflow
from fairlead.flow.checks import check_workflow
from fairlead.flow.journal import Path as StepPath

ROOT = Path(__file__).parents[3]
PATTERNS = ROOT / "examples" / "patterns"
RUNS: list[tuple[str, dict[str, Any], Any]] = [
    ("sequence", {"price": 10, "count": 3}, 36),
    ("parallel-split", {"service": "shop"}, "logs of shop metrics of shop"),
    ("synchronization", {}, 3),
    ("exclusive-choice", {"amount": 101}, "large: somebody looks at it"),
    ("exclusive-choice", {"amount": 99}, "small: it is paid"),
    ("multi-choice", {"ways": ["mail", "call"]}, ["mailed", "called"]),
    ("discriminator", {}, {"slow": None, "quick": "a short answer"}),
    ("partial-join", {"first": "yes", "third": "no"}, {"first": "yes", "second": None, "third": "no"}),
    (
        "multiple-instances",
        {},
        [f"Hello {name}, you are number {n}." for n, name in enumerate(["Ada", "Grace", "Edsger"], 1)],
    ),
    ("multiple-instances-run-time", {"numbers": [8, 3, 4]}, [4, None, 2]),
    ("structured-loop", {"most": 100}, 128),
    ("deferred-choice", {}, {"paid": "ship to Lille", "cancelled": None}),
    ("persistent-trigger", {}, {"how": "ready", "speed": 3}),
    ("cleanup", {"guest": "Ada"}, "table 7 for Ada"),
    ("cancel-region", {}, "called off by alice"),
    ("structured-discriminator", {}, {"told": "a short answer", "slow": "a long answer"}),
]
SIGNALS: dict[str, list[dict[str, Any]]] = {
    "cancel-region": [{"name": "callOff", "by": "alice"}],
    "cleanup": [{"name": "seated", "by": "alice"}],
    "deferred-choice": [{"name": "paid", "data": {"city": "Lille"}, "by": "alice"}],
    "persistent-trigger": [{"name": "go", "data": {"speed": 3}, "by": "alice"}],
}


def workflow(name: str, called: str = "w") -> Workflow:
    declared = next(yaml.safe_load_all((PATTERNS / f"{name}.yaml").read_text(encoding="utf-8")))
    named = {"name": called, "namespace": "team", "uid": f"uid-{called}", "generation": 1}
    return Workflow.model_validate({**declared, "metadata": named, "status": {"conditions": [READY]}})


@pytest.mark.parametrize(("name", "given", "output"), RUNS, ids=[f"{row[0]}-{n}" for n, row in enumerate(RUNS)])
async def test_a_pattern_runs_as_its_example_says(
    tmp_path: Path, name: str, given: dict[str, Any], output: Any
) -> None:
    world = World(tmp_path / "journal.db", workflow(name))
    async with world.engine() as engine:
        engine.submit(run_object(input=given, signals=SIGNALS.get(name, [])))
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.sink.of("run-0")[-1]["output"] == output


async def test_a_cancelled_case_is_cleaned_up_as_its_example_says(tmp_path: Path) -> None:
    world, raw = World(tmp_path / "journal.db", workflow("cleanup")), run_object(input={"guest": "Ada"})
    async with world.engine() as engine:
        ended = engine.submit(raw)
        await world.until(lambda: world.succeeded() == ("Unknown", "WaitingForSignal"))
        engine.runs.observe(raw | {"spec": raw["spec"] | {"desiredState": "Cancelled"}})
        state = await asyncio.wait_for(ended, 20)
    assert world.succeeded() == ("False", "Cancelled")
    free = state.steps[StepPath("!/free")]
    assert (free.phase, free.output) == ("Succeeded", "freed: table 7 for Ada")


async def test_recursion_ends_as_its_example_says(tmp_path: Path) -> None:
    world = ChildWorld(tmp_path / "journal.db")
    world.resources.workflows["recursion"] = workflow("recursion", "recursion")
    async with world.serving() as engine:
        engine.submit(run_object(workflow="recursion", input={"n": 4}))
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.sink.of("run-0")[-1]["output"] == 24
    assert len(world.kube.made) == 3


@pytest.mark.parametrize("name", sorted(path.stem for path in PATTERNS.glob("*.yaml")))
def test_an_example_passes_the_static_checks(name: str) -> None:
    found = workflow(name, name)
    assert check_workflow(found.spec, models=None, tools=None, workflows={name: None}, name=name) == []


def test_every_example_runs_and_stands_in_the_table() -> None:
    files = {path.stem for path in PATTERNS.glob("*.yaml")}
    listed = re.findall(r"examples/patterns/([a-z-]+)\.yaml", (ROOT / "docs/patterns.md").read_text(encoding="utf-8"))
    assert files == {"recursion", *(name for name, _, _ in RUNS)} == set(listed)
