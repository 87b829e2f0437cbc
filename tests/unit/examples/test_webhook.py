"""The commands of the webhook's README, as they stand there, make a Secret and a request that the engine accepts."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import yaml
from tests.unit.engine.fakes import READY
from tests.unit.engine.hookworld import World

from fairlead.api.workflow import Workflow
from fairlead.engine.ports import HOOKS_PORT

EXAMPLE = Path(__file__).parents[3] / "examples" / "webhook"
STAND_INS = r"""
set -eu
note() { printf '%s\0' "$@" $'\n' >> calls; }
kubectl() { note kubectl "$@"; }
curl() { note curl "$@"; }
"""


@pytest.fixture
def called(tmp_path: Path) -> list[list[str]]:
    """Return how the README's commands call kubectl and curl."""
    lines = re.findall(r"^    (.*)$", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    subprocess.run(["bash", "-c", STAND_INS + "\n".join(lines) + "\nwait"], cwd=tmp_path, check=True, timeout=60)
    calls = (tmp_path / "calls").read_bytes().decode().removesuffix("\0\n\0").split("\0\n\0")
    return [call.split("\0") for call in calls]


@pytest.fixture
async def world(called: list[list[str]]) -> AsyncIterator[World]:
    """A namespace that has the example's Workflow and the Secret that the README makes."""
    (secret,) = (call for call in called if call[1:4] == ["create", "secret", "generic"])
    world = World()
    world.resources.secret_name = secret[4]
    literals = [part.removeprefix("--from-literal=") for part in secret[5:]]
    world.resources.secret = dict(part.split("=", 1) for part in literals)
    declared = yaml.safe_load((EXAMPLE / "workflow.yaml").read_text(encoding="utf-8"))
    declared["metadata"] |= {"namespace": "team", "uid": "uid-incident", "generation": 1}
    workflow = Workflow.model_validate(declared | {"status": {"conditions": [READY]}})
    world.resources.workflows = {workflow.metadata.name: workflow}
    yield world
    await world.client.aclose()


def request_of(called: list[list[str]]) -> httpx.Request:
    """Return what the README's curl sends."""
    (curl,) = (call[1:] for call in called if call[0] == "curl")
    options = list(pairwise(curl))
    headers = [tuple(value.split(": ", 1)) for option, value in options if option == "-H"]
    (body,) = (value for option, value in options if option == "-d")
    (url,) = (word for word in curl if word.startswith("http://"))
    through, _, path = url.partition("/proxy/")
    assert through.endswith(f"/services/https:fairlead-engine:{HOOKS_PORT}")
    return httpx.Request("POST", f"https://engine/{path}", content=body.encode(), headers=headers)


async def test_the_request_of_the_readme_starts_a_run_and_comes_again_without_harm(
    world: World, called: list[list[str]]
) -> None:
    answers = [await world.client.send(request_of(called)) for _ in range(2)]
    assert [(answer.status_code, answer.json()["outcome"]) for answer in answers] == [
        (202, "Accepted"),
        (200, "Exists"),
    ]
    assert world.run["spec"]["input"] == {"title": "The till is down", "severity": "high"}


async def test_the_request_of_the_readme_needs_the_key_of_the_readme(world: World, called: list[list[str]]) -> None:
    assert world.resources.secret is not None
    world.resources.secret["secret"] += "x"
    assert (await world.client.send(request_of(called))).status_code == 401
