"""What people delete while it runs stops, and nothing holds it back: Fairlead sets no finalizers."""

from __future__ import annotations

import pytest
from tests.e2e.installation import RUN, create_run, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import STEPS, effects

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

QUIET = 5
WAYS = {
    "background": ["--cascade=background"],
    "foreground": ["--cascade=foreground"],
    "orphan": ["--cascade=orphan"],
    "force": ["--force", "--grace-period=0"],
}


def done_by(team: Kubectl) -> dict[str, int]:
    """Return how many effects each run has had."""
    counted = dict.fromkeys(WAYS, 0)
    for key, count in effects(team).items():
        counted[key.rpartition("-")[0]] += count
    return counted


@pytest.mark.requirement("F33")
def test_a_deleted_run_stops_however_it_was_deleted(team: Kubectl) -> None:
    names = {way: create_run(team, "patience", run=way) for way in WAYS}
    until("all runs are under way", lambda: all(done_by(team).values()))
    for way, options in WAYS.items():
        team("delete", RUN, names[way], "--wait=false", *options)
    until("the objects are gone", lambda: not team.get(RUN)["items"], timeout_seconds=60)
    seen = [done_by(team)]

    def quiet() -> bool:
        """Tell whether nothing was done for five looks: a step of `patience` takes a second."""
        seen.append(done_by(team))
        return len(seen) > QUIET and seen[-1] == seen[-QUIET]

    until("nothing is done any more", quiet, timeout_seconds=60, every_seconds=1)
    assert {way: count for way, count in done_by(team).items() if count >= STEPS} == {}
    assert {key: count for key, count in effects(team).items() if count > 1} == {}


@pytest.mark.requirement("F34")
def test_a_namespace_that_is_deleted_under_its_runs_goes(team: Kubectl) -> None:
    for number in range(3):
        create_run(team, "patience", run=f"r{number}")
    until("the runs are under way", lambda: effects(team).total() >= 3)
    team("delete", "namespace", team.namespace, "--wait=false")
    until(
        "the namespace is gone",
        lambda: team.namespace not in team("get", "namespaces", "--output=name"),
        timeout_seconds=120,
    )
