"""Step pods that cannot begin: why is told while it lasts, and the step fails when it has lasted too long."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeClock
from tests.unit.engine.podworld import PodWorld, asked, exited, status

from fairlead.engine.pods.reading import waits
from fairlead.engine.pods.startup import STARTUP_SECONDS, Startup
from fairlead.errors import KubeError

PULLS = {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
BACKS_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}
LOOPS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
FULL = KubeError(403, "pods x is forbidden: exceeded quota: q")
DAY = 86_400.0


class Begins:
    """A pod that is looked at, and what is told of it."""

    def __init__(self, seconds: float = DAY) -> None:
        self.clock = FakeClock()
        self.told: list[str] = []
        self.startup = Startup(self.clock, seconds=seconds, tell=self.told.append)

    def over(self, pod: dict[str, Any], *, after: float = 0) -> str | None:
        self.clock.now += int(after * 1000)
        error = self.startup.over(waits(pod))
        return None if error is None else error.reason


@pytest.mark.requirement("F09")
def test_a_first_hiccup_of_a_registry_ends_no_step_however_old_its_pod_is() -> None:
    begins = Begins()
    assert begins.over(status(conditions=[UNSCHEDULED])) is None
    assert begins.over(status(PULLS), after=STARTUP_SECONDS - 1) is None
    assert begins.over(status(BACKS_OFF), after=STARTUP_SECONDS - 1) is None
    assert begins.over(status(PULLS), after=1) == "ErrImagePull"
    assert begins.told == [
        "Unschedulable: 0/1 nodes",
        "ErrImagePull: no such host",
        "ImagePullBackOff: Back-off",
        "ErrImagePull: no such host",
    ]


def test_each_container_has_its_own_time() -> None:
    begins, initial = Begins(), {"waiting": {"reason": "PodInitializing"}}
    assert begins.over(status(initial, inits=[{"name": "input", "state": PULLS}])) is None
    assert begins.over(status(PULLS), after=STARTUP_SECONDS) is None


def test_a_helper_that_is_started_again_and_again_is_in_one_state() -> None:
    begins, initial = Begins(), {"waiting": {"reason": "PodInitializing"}}
    assert begins.over(status(initial, inits=[{"name": "calls", "state": LOOPS}])) is None
    assert begins.over(status(initial, inits=[{"name": "calls", "state": {"running": {}}}]), after=200) is None
    assert begins.over(status(initial, inits=[{"name": "calls", "state": LOOPS}]), after=100) == "CrashLoopBackOff"
    assert begins.told == ["CrashLoopBackOff: back-off", "", "CrashLoopBackOff: back-off"]


def test_a_step_that_has_less_time_fails_with_what_is_in_its_way_before_that_is_over() -> None:
    begins = Begins(seconds=20)
    assert begins.over(status(PULLS), after=17) is None
    assert begins.over(status(PULLS), after=2) == "ErrImagePull"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FIRST", "_LONGEST", "_QUOTA"):
        monkeypatch.setattr(f"fairlead.engine.pods.runner.{name}_PAUSE_SECONDS", 0.001)


@pytest.mark.requirement("F09")
@pytest.mark.usefixtures("quick")
async def test_a_quota_that_is_used_up_is_told_and_waited_for() -> None:
    world = PodWorld()
    world.cluster.refuse = FULL
    running = asyncio.create_task(world.make(asked()))
    while not world.told:
        await asyncio.sleep(0.001)
    world.cluster.refuse = None
    await running
    assert world.outcome()["result"]["output"] == {"n": 7}
    assert world.told == [f"QuotaExceeded: {FULL.message}", "", ""]


@pytest.mark.requirement("F09")
@pytest.mark.usefixtures("quick")
async def test_an_image_that_does_not_come_is_told_until_it_comes_or_the_time_is_over() -> None:
    world = PodWorld()
    world.cluster.ends = status(BACKS_OFF)["status"]
    running = asyncio.create_task(world.make(asked()))
    while not world.told:
        await asyncio.sleep(0.001)
    world.cluster.ends = status(exited(0), phase="Succeeded")["status"]
    await running
    assert world.outcome()["result"]["output"] == {"n": 7}
    assert world.told == ["ImagePullBackOff: Back-off", "", ""]

    world = PodWorld()
    world.cluster.ends = status(BACKS_OFF)["status"]
    await world.make(replace(asked(), deadline_ms=world.clock() + 50))
    assert world.outcome()["error"]["reason"] == "ImagePullBackOff"
