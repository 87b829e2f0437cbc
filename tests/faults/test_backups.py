"""docs/backup.md, followed: the engine's volume is lost, or an older one is put back, and nothing happens twice."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import Cluster
from tests.cluster.commands import run as run_program
from tests.e2e.installation import RUN, SYSTEM, condition, create_run, until
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import accepts_runs, effects

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CLAIM = "data-fairlead-engine-0"
ENGINE = "fairlead-engine-0"
OPERATOR = "--selector=app.kubernetes.io/name=fairlead-operator"


def _append(step: str) -> dict[str, Any]:
    arguments = {"key": f"$( input.run )-{step}"}
    return {"name": step, "tool": {"tool": "ledger", "function": "append", "arguments": arguments}}


PAUSING = {
    "apiVersion": "fairlead.dev/v1alpha1",
    "kind": "Workflow",
    "metadata": {"name": "pausing"},
    "spec": {
        "serviceAccountName": "worker",
        "input": {"schema": {"type": "object", "properties": {"run": {"type": "string"}}, "required": ["run"]}},
        "steps": [_append("s00"), {"name": "told", "wait": {"signal": {"name": "go"}}}, _append("s02")],
    },
}
"""Waits for a signal between two effects."""


@pytest.mark.requirement("A65", "G8")
def test_with_a_lost_volume_runs_say_so_and_nothing_is_done_again(team: Kubectl) -> None:
    begun = create_run(team, "patience", run="lost")
    until("it has done something", lambda: effects(team)["lost-s00"] == 1)
    until("its status says so", lambda: _steps(team, begun)["s00"] == "Succeeded")
    with _engine_away(team):
        done = effects(team)
        team("delete", "pvc", CLAIM)
    ended = _ended(team, begun)
    assert ended["reason"] == "StateLost", ended
    assert _steps(team, begun)["s00"] == "Succeeded", "what was known of it stays"
    _goes_on(team)
    assert _of(effects(team), "lost-") == _of(done, "lost-")


@pytest.mark.requirement("A65", "G8")
def test_a_restored_backup_repeats_nothing_that_the_cluster_was_told_of(cluster: Cluster, team: Kubectl) -> None:
    team.create(PAUSING)
    accepts_runs(team)
    waits = create_run(team, "pausing", run="waits")
    until("it waits", lambda: _steps(team, waits).get("told") == "Waiting")
    with _engine_away(team):
        _to_backup(team, _back_up)
    accepts_runs(team)
    later = create_run(team, "patience", run="later")
    until("it has done something", lambda: effects(team)["later-s01"] == 1)
    until("its status says so", lambda: _steps(team, later).get("s01") == "Succeeded")
    with _engine_away(team):
        done = effects(team)
        _to_backup(team, _restore)
    assert _ended(team, later)["reason"] == "StateLost"
    _goes_on(team)
    signal = (sys.executable, "-m", "fairlead.cli", "signal", waits, "go", f"--namespace={team.namespace}")
    run_program(*signal, env=cluster.environment())
    assert _ended(team, waits)["status"] == "True", "what had not moved goes on where it was"
    again = effects(team)
    assert _of(again, "waits-") == {"waits-s00": 1, "waits-s02": 1}
    assert _of(again, "later-") == _of(done, "later-")
    assert {key: count for key, count in again.items() if count > 1} == {}


def _goes_on(team: Kubectl) -> None:
    """A new run does all that it has to."""
    accepts_runs(team)
    assert _ended(team, create_run(team, "errands", run="new"))["status"] == "True"


def _of(done: Counter[str], prefix: str) -> dict[str, int]:
    return {key: count for key, count in done.items() if key.startswith(prefix)}


def _steps(team: Kubectl, run: str) -> dict[str, str]:
    return {row["path"]: row["phase"] for row in (team.get(RUN, run).get("status") or {}).get("steps", ())}


def _ended(team: Kubectl, run: str) -> dict[str, str]:
    until(f"{run} ends", lambda: condition(team.get(RUN, run), "Finished").get("status") == "True", timeout_seconds=180)
    return condition(team.get(RUN, run), "Succeeded")


@contextmanager
def _engine_away(team: Kubectl) -> Iterator[None]:
    """The operator stands aside, the engine is gone, and both come back."""
    system = team.within(SYSTEM)
    replicas = str(system.get("deployment", "fairlead-operator")["spec"]["replicas"])
    system("scale", "deployment/fairlead-operator", "--replicas=0")
    try:
        until("no operator is there", lambda: not system.get("pods", OPERATOR)["items"])
        team("delete", "statefulset/fairlead-engine")
        until("the engine is gone", lambda: ENGINE not in team("get", "pods", "--output=name"), timeout_seconds=120)
        yield
    finally:
        system("scale", "deployment/fairlead-operator", f"--replicas={replicas}")
        system("rollout", "status", "deployment/fairlead-operator", "--timeout=120s")
    until("the engine is back", lambda: ENGINE in team("get", "pods", "--output=name"), timeout_seconds=120)


def _back_up(volume: Path, copy: Path) -> None:
    run_program("cp", "--archive", str(volume), str(copy))


def _restore(volume: Path, copy: Path) -> None:
    for file in volume.iterdir():
        file.unlink() if file.is_file() else shutil.rmtree(file)
    run_program("cp", "--archive", f"{copy}/.", str(volume))
    shutil.rmtree(copy)


def _to_backup(team: Kubectl, work: Callable[[Path, Path], None]) -> None:
    """Do something with the folder of the volume and with that of its backup."""
    volume = team.get("pvc", CLAIM)["spec"]["volumeName"]
    where = Path(team.get("pv", volume)["spec"]["hostPath"]["path"])
    work(where, where.with_name(f"{where.name}.backup"))
