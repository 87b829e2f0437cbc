"""A few rounds of the crash exam (exam.py): every kind of step, while engine, step pods and node agent are killed."""

from __future__ import annotations

import os
import random

import pytest
from tests.cluster import Cluster
from tests.e2e.installation import Fairlead
from tests.faults.exam import examine, scene

RUNS = int(os.environ.get("FAIRLEAD_SINKS", "12"))

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600 + 60 * RUNS)]


@pytest.mark.requirement("G1")
@pytest.mark.requirement("G2")
@pytest.mark.requirement("F12")
@pytest.mark.requirement("F06")
def test_whatever_is_killed_every_run_ends_and_no_effect_is_lost_or_repeated(
    cluster: Cluster, fairlead: Fairlead
) -> None:
    team = scene(fairlead.kubectl, RUNS)
    try:
        marks = examine(cluster, team, RUNS, chance=random.Random(RUNS))
    finally:
        fairlead.kubectl("delete", "namespace", team.namespace, "--wait=false")
    print(marks)
    assert (marks.failed, marks.not_ended, marks.repeated, marks.lost) == (0, 0, 0, 0), marks
    assert marks.completed + marks.unknown == RUNS
    assert (marks.pods_left, marks.audit_gaps) == (0, 0)
    assert marks.engine and marks.step_pods, "something was killed"
