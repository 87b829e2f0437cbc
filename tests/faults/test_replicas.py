"""Two replicas of an engine on PostgreSQL: one serves, the other takes over - from one that hangs, from one that ends.

The database is outside of the cluster, as databases are.
"""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator

import pytest
from tests import postgres
from tests.cluster import Cluster
from tests.e2e.installation import RESTRICTED, Fairlead, condition, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import accepts_runs, accounted_for, declare, effects, kill, runs

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def replicated(cluster: Cluster, fairlead: Fairlead) -> Iterator[Kubectl]:
    """A namespace like `team`, whose Engine has two replicas on a database of its own."""
    name = f"replicas-{uuid.uuid4().hex[:10]}"
    with postgres.server(host=cluster.host_address) as database:
        fairlead.kubectl("create", "namespace", name)
        try:
            fairlead.kubectl("label", "namespace", name, RESTRICTED)
            team = fairlead.kubectl.within(name)
            data = {"url": database.url, "allowed-use": "database"}
            team.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "journal"}, "stringData": data})
            spec = {
                "replicas": 2,
                "database": {"secretRef": {"name": "journal", "key": "url"}},
                "storage": {"size": "100Mi"},
                "resources": {"cpu": "50m", "memory": "256Mi"},
            }
            team.create(
                {"apiVersion": "fairlead.dev/v1alpha1", "kind": "Engine", "metadata": {"name": "default"}, "spec": spec}
            )
            declare(team)
            accepts_runs(team)
            yield team
        finally:
            fairlead.kubectl("delete", "namespace", name, "--wait=false")


def owner(team: Kubectl) -> str:
    return str(team.get("engine", "default")["status"].get("owner", ""))


def both_ready(team: Kubectl) -> bool:
    return team.get("statefulset", "fairlead-engine")["status"].get("readyReplicas") == 2


def leads_to(team: Kubectl) -> str:
    selector = team.get("service", "fairlead-engine")["spec"]["selector"]
    return str(selector.get("statefulset.kubernetes.io/pod-name", ""))


@pytest.mark.requirement("G5")
@pytest.mark.requirement("F12")
def test_another_replica_goes_on_for_one_that_hangs_and_for_one_that_ends(replicated: Kubectl) -> None:
    team = replicated
    until("both replicas are ready", lambda: both_ready(team), timeout_seconds=180)
    first = owner(team)
    names = [create_run(team, "errands", run=f"hang-{number}") for number in range(4)]
    until("the runs are under way", lambda: effects(team).total() > 3, every_seconds=0.05)

    kill(team, first, signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        names.append(create_run(team, "errands", run="meanwhile"))
        second = until("another replica serves", lambda: owner(team) if owner(team) != first else "", every_seconds=0.1)
        until("it works", lambda: _has_done(team, "meanwhile"), every_seconds=0.1)
        print(f"{time.monotonic() - stopped:.1f} s from one that hangs to the next effect by the other")
        until("the Service leads there", lambda: leads_to(team) == second)
    finally:
        kill(team, first, signal.SIGCONT)
    for name in names:
        finished(team, name)
    accounted_for(team)
    until("the one that hung has begun anew and stands by", lambda: _restarted(team, first) and both_ready(team))
    assert owner(team) == second, "who comes back waits"

    names = [create_run(team, "errands", run=f"end-{number}") for number in range(4)]
    until("the runs are under way", lambda: _has_done(team, "end"), every_seconds=0.05)
    ended = time.monotonic()
    team("delete", "pod", second, "--wait=false")
    until("the first one serves again", lambda: owner(team) == first, every_seconds=0.1)
    print(f"{time.monotonic() - ended:.1f} s from the deletion of its pod to the other's word that it serves")
    for name in names:
        finished(team, name)
    unknown = accounted_for(team)
    assert unknown <= 4, "one that is asked to end lets its calls finish: only those of the hung one are unknown"
    audits = [condition(obj, "Succeeded")["reason"] for obj in runs(team).values()]
    assert set(audits) <= {"Completed", "OutcomeUnknown"}


def _has_done(team: Kubectl, run: str) -> bool:
    return any(key.startswith(f"{run}-") for key in effects(team))


def _restarted(team: Kubectl, pod: str) -> bool:
    statuses = team.get("pod", pod)["status"].get("containerStatuses", [])
    return any(status["restartCount"] > 0 for status in statuses)
