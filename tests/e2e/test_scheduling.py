"""Runs that the clock makes and retention removes, on a real cluster, past the admission policies on the engine."""

from __future__ import annotations

from typing import Any

import pytest
from tests.e2e.installation import RUN, Fairlead, finished, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import becomes, engine, manifest, scene

pytestmark = pytest.mark.cluster

TICK = manifest(
    "Workflow",
    "tick",
    {
        "steps": [{"name": "time", "transform": {"value": "$( run.scheduledAt )"}}],
        "triggers": {"schedules": [{"name": "often", "cron": "* * * * *"}]},
        "retention": {"succeeded": 1},
    },
)


def names(kubectl: Kubectl, *selector: str) -> list[str]:
    return [str(line.partition("/")[2]) for line in kubectl("get", RUN, "--output=name", *selector).split()]


def test_a_schedule_makes_a_run_each_minute_and_retention_leaves_the_last(
    administrator: Kubectl, chart: Fairlead
) -> None:
    with scene(administrator, engine(), TICK) as kubectl:
        assert becomes(kubectl, "workflow", "tick", "Ready")
        mine: dict[str, Any] = manifest("WorkflowRun", "mine", {"workflow": "tick"})
        kubectl.create(mine)
        finished(kubectl, "mine")
        (first,) = until("a run was made", lambda: names(kubectl, "-l", "fairlead.dev/schedule=often"))
        run = finished(kubectl, first)
        made_for = run["metadata"]["annotations"]["fairlead.dev/scheduled-at"]
        assert run["status"]["output"] == made_for.replace("Z", ".000Z")
        until(
            "the next time is told",  # a status is written every five seconds at most
            lambda: kubectl.get("workflow", "tick")["status"].get("nextScheduleTime", "") > made_for,
        )
        until("the first run is gone", lambda: first not in names(kubectl), timeout_seconds=180)
        assert "mine" in names(kubectl), "somebody named it"
