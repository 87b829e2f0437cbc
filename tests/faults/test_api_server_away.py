"""The API server or its etcd goes away and comes back: calls wait, none is denied meanwhile, and nothing is repeated.

FAIRLEAD_OUTAGE_SECONDS says for how long the API server does.
"""

from __future__ import annotations

import os
import time

import pytest
from tests.cluster import Cluster
from tests.e2e.installation import condition, create_run, finished, ledger, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import STEPS, effects

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OUTAGE_SECONDS = float(os.environ.get("FAIRLEAD_OUTAGE_SECONDS", "60"))
ETCD_SECONDS = 30
CACHE_SECONDS = 10  # for as long a permission that was looked up may be used
SLACK_SECONDS = 2
RUNS = 3


@pytest.mark.requirement("F14")
@pytest.mark.requirement("F15")
def test_without_the_api_server_calls_wait_and_runs_lose_nothing(cluster: Cluster, team: Kubectl) -> None:
    names = under_way(team)
    with cluster.without("apiserver"):
        went = time.time()
        time.sleep(OUTAGE_SECONDS)
        came_back = time.time()
    nothing_lost(team, names)

    entries = ledger(team)
    last_allowed = went + CACHE_SECONDS + SLACK_SECONDS
    assert [entry["at"] - went for entry in entries if last_allowed < entry["at"] < came_back] == []
    assert [entry for entry in entries if entry["at"] > came_back], "the outage came too late to stop anything"


@pytest.mark.requirement("F23")
def test_while_etcd_hangs_runs_lose_nothing(cluster: Cluster, team: Kubectl) -> None:
    names = under_way(team)
    with cluster.hanging("etcd"):
        time.sleep(ETCD_SECONDS)
    nothing_lost(team, names)


def under_way(team: Kubectl) -> list[str]:
    """Create the runs and return their names once each has begun."""
    names = [create_run(team, "patience", run=f"r{number}") for number in range(RUNS)]
    until("all runs are under way", lambda: len({key.split("-")[0] for key in effects(team)}) == RUNS)
    return names


def nothing_lost(team: Kubectl, names: list[str]) -> None:
    """Wait for the runs and assert that every step was done once and nothing was denied."""
    for name in names:
        obj = finished(team, name)
        assert condition(obj, "Succeeded")["status"] == "True", obj["status"]
        assert not obj["status"].get("denials")
    assert sorted(entry["key"] for entry in ledger(team)) == sorted(
        f"r{run}-s{step:02}" for run in range(RUNS) for step in range(STEPS)
    )
