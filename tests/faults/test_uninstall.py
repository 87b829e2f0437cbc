"""Uninstalled and installed again: what people wrote and the journals stay, and the runs go on where they stood."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from tests.cluster.commands import run
from tests.e2e.installation import RELEASE, ROOT, RUN, SYSTEM, Fairlead, condition, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import effects, server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

OURS = "tools.fairlead.dev,policies.fairlead.dev,workflows.fairlead.dev,workflowruns.fairlead.dev"
MADE = "all,serviceaccounts,roles,rolebindings,networkpolicies,configmaps,secrets,leases,engines.fairlead.dev"
GLOBAL = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
OF_EVERY_NAMESPACE = ["configmap/kube-root-ca.crt", "serviceaccount/default"]


def trace(fairlead: Fairlead, team: Kubectl, name: str) -> Any:
    """Return a run's spans, which the engine makes of its journal."""
    words = (sys.executable, "-m", "fairlead.cli", "trace", name, "--namespace", team.namespace, "--output", "json")
    return json.loads(run(*words, env={**fairlead.environment, "PYTHONPATH": str(ROOT / "operator")}))


@pytest.mark.requirement("G1")
@pytest.mark.requirement("G7")
def test_runs_go_on_from_the_volume_after_fairlead_was_uninstalled(fairlead: Fairlead, team: Kubectl) -> None:
    done = create_run(team, "errands", run="done")
    open_ = create_run(team, "waits", run="open")
    before, journal = finished(team, done), trace(fairlead, team, done)
    until("the run waits", lambda: _waits(team, open_))
    counted = effects(team)
    written = team("get", OURS, "--output=name")
    try:
        fairlead.helm("uninstall", RELEASE, "--timeout=150s")
        assert sorted(team("get", MADE, "--output=name").split()) == OF_EVERY_NAMESPACE
        assert sorted(fairlead.kubectl.within(SYSTEM)("get", MADE, "--output=name").split()) == OF_EVERY_NAMESPACE
        assert "fairlead" not in fairlead.kubectl("get", GLOBAL, "--output=name")
        assert team("get", "persistentvolumeclaims", "--output=name").split() == [
            "persistentvolumeclaim/data-fairlead-engine-0"
        ]
        assert team("get", OURS, "--output=name") == written
        team(
            "patch", "tool", "moody", "--type=merge", "-p", json.dumps({"spec": {"mcp": {"server": server("normal")}}})
        )
    finally:
        fairlead.install()

    went_on = finished(team, open_)
    assert condition(went_on, "Succeeded")["status"] == "True", went_on["status"]
    # The ledgers' files went with their pods; the engine's journal did not.
    assert counted["open-s00"] == 1
    assert effects(team, "moody") == {"open-s01": 1}
    assert effects(team) == {"open-s02": 1}
    assert trace(fairlead, team, done) == journal
    assert team.get(RUN, done)["status"] == before["status"]


def _waits(team: Kubectl, name: str) -> bool:
    return "Waiting" in [row["phase"] for row in team.get(RUN, name).get("status", {}).get("steps", [])]
