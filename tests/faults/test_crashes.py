"""Killed again and again with SIGKILL: what was done is never done twice, and what nobody knows is said to be unknown.

FAIRLEAD_KILLS says how often the engine is killed.
"""

from __future__ import annotations

import os
import random

import pytest
from tests.e2e.installation import RUN, SYSTEM, Fairlead, condition, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import EFFECTS, accounted_for, effects, kill, runs

KILLS = int(os.environ.get("FAIRLEAD_KILLS", "8"))
RUNS_PER_KILL = 3
ENGINE = "fairlead-engine-0"

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600 + 60 * KILLS)]


@pytest.mark.requirement("F12")
@pytest.mark.requirement("G1")
@pytest.mark.requirement("G2")
@pytest.mark.requirement("G3")
def test_a_killed_engine_repeats_no_effect_and_loses_none(team: Kubectl) -> None:
    chance = random.Random(KILLS)
    names = []
    for number in range(KILLS):
        names += [create_run(team, "errands", run=f"r{number}-{each}") for each in range(RUNS_PER_KILL)]
        goal = effects(team).total() + chance.randint(1, RUNS_PER_KILL * len(EFFECTS) // 2)
        until("the runs go on", lambda goal=goal: _reached(team, goal), every_seconds=0.05)
        kill(team, ENGINE)
        if number % 2:
            team("delete", "pod", ENGINE, "--wait=false")  # a new pod: the kubelet would wait ever longer with this one
    for name in names:
        finished(team, name)

    unknown = accounted_for(team)
    assert condition(finished(team, create_run(team, "errands", run="last")), "Succeeded")["status"] == "True"
    print(f"{KILLS} kills, {len(names)} runs: {len(names) - unknown} succeeded, {unknown} ended as OutcomeUnknown")


def _reached(team: Kubectl, goal: int) -> bool:
    """Tell whether so many effects have happened, or no more will because every run has ended."""
    return effects(team).total() >= goal or all(
        condition(obj, "Finished").get("status") == "True" for obj in runs(team).values()
    )


@pytest.mark.requirement("F02")
@pytest.mark.requirement("F01")
def test_runs_begin_and_end_without_an_operator(fairlead: Fairlead, team: Kubectl) -> None:
    system = fairlead.kubectl.within(SYSTEM)
    under_way = create_run(team, "patience", run="before")
    until("the run is under way", lambda: effects(team)["before-s00"])
    pods = system.get("pods", "--selector=app.kubernetes.io/name=fairlead-operator")["items"]
    for pod in pods:
        kill(system, pod["metadata"]["name"])
    system("scale", "deployment/fairlead-operator", "--replicas=0")
    try:
        started = create_run(team, "errands", run="during")
        for name in (under_way, started):
            assert condition(finished(team, name), "Succeeded")["status"] == "True"
        assert set(effects(team).values()) == {1}
        team("delete", "policy", "worker")
    finally:
        system("scale", "deployment/fairlead-operator", f"--replicas={len(pods)}")
        system("rollout", "status", "deployment/fairlead-operator", "--timeout=120s")
    until("the grant goes", lambda: "fairlead-grant-worker" not in team("get", "roles", "--output=name"))
    until("the engine knows", lambda: condition(team.get("workflow", "errands"), "Authorized")["status"] == "False")
    refused = finished(team, create_run(team, "errands", run="after"))
    assert condition(refused, "Succeeded")["reason"] == "Denied"
    assert not [key for key in effects(team) if key.startswith("after-")]
    assert len(team.get(RUN)["items"]) == 3
