"""The crash exam on a cluster: the kitchen sink, many times, while everything under it is killed at random moments.

    make crash-exam N=1000

What is killed: the engine's process, the processes of step pods (ours and the user's), and the node's agent (kubelet).
An engine that does not serve yet is spared most of the time: a slow machine makes the exam longer, not endless.
Afterwards every run must have ended, and the ledger says what happened: an effect is *repeated* when it is there twice,
and *lost* when a run that completed lacks it, or one that ended otherwise was told that it was done. A run that says
it does not know what came of a call is neither. What `fairlead audit verify` finds, and each effect without an intent
on record, is a *gap* of the audit.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from tests.bench import machine, report
from tests.cluster import Cluster
from tests.e2e.installation import RESTRICTED, RUN, Fairlead, condition, ledger, load_images, until
from tests.e2e.kubectl import Kubectl
from tests.faults import audited, kitchensink
from tests.faults.errands import kill_some, processes

AT_ONCE = 12
SPARED_PERCENT = 90
LONGEST_PAUSE_SECONDS = 10.0
LONGEST_WITHOUT_AGENT_SECONDS = 4.0
LONGEST_SECONDS_PER_RUN = 60
MOST_AT_A_TIME = 4
"""Processes of step pods that are killed at once."""
SAY_SECONDS = 30.0
ENGINE = "fairlead-engine-0"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/performance.md"
HEAD = "| runs | engine killed | step pods killed | node agent killed | completed | says: unknown | failed | not ended "
HEAD += "| repeated | lost | pods left | audit gaps |\n|---|---|---|---|---|---|---|---|---|---|---|---|"


@dataclass(slots=True)
class Marks:
    """What came of an exam, in the order of the table."""

    runs: int
    engine: int = 0
    step_pods: int = 0
    agent: int = 0
    completed: int = 0
    unknown: int = 0
    failed: int = 0
    not_ended: int = 0
    repeated: int = 0
    lost: int = 0
    pods_left: int = 0
    audit_gaps: int = 0

    @property
    def passed(self) -> bool:
        """Tell whether nothing is open, wrong, done twice, lost or off the record."""
        wrong = self.failed + self.not_ended + self.repeated + self.lost + self.pods_left + self.audit_gaps
        return not wrong

    def __str__(self) -> str:
        return "| " + " | ".join(str(getattr(self, field.name)) for field in fields(self)) + " |"


def examine(
    cluster: Cluster,
    team: Kubectl,
    runs: int,
    *,
    chance: random.Random,
    minutes: float = math.inf,
    say: Callable[[str], None] = print,
) -> Marks:
    """Execute `runs` kitchen sinks, some at once, and kill something every few seconds until all have ended.

    Args:
        cluster: where; its node agent is killed too.
        team: kubectl in a namespace where `kitchensink.declare` was.
        runs: how many.
        chance: what is killed, and when.
        minutes: after so many no further run is created; those that were are the exam.
        say: told how it goes.
    """
    marks = Marks(runs)
    gives_up = time.monotonic() + 120 + runs * LONGEST_SECONDS_PER_RUN
    last, created, says = time.monotonic() + minutes * 60, 0, 0.0
    is_open: list[str] = []
    while time.monotonic() < gives_up:
        is_open = _open(team, is_open)
        ended = created - len(is_open)
        if time.monotonic() > last:
            runs = marks.runs = created
        if created == runs and not is_open:
            break
        for number in range(created, min(runs, created + AT_ONCE - len(is_open))):
            is_open.append(kitchensink.run_name(number))
            team.create(kitchensink.run_of(is_open[-1]))
            created += 1
        time.sleep(chance.uniform(0.2, LONGEST_PAUSE_SECONDS))
        _kill(cluster, team, chance, marks)
        if time.monotonic() > says:
            says = time.monotonic() + SAY_SECONDS
            say(f"{ended} of {runs} runs ended; {marks.engine}, {marks.step_pods}, {marks.agent} kills")
    _judge(team, marks)
    return marks


def _open(team: Kubectl, names: Sequence[str]) -> list[str]:
    """Return those of these runs that go on. The others are not looked at again: there may be a thousand."""
    if not names:
        return []
    found = team.get(RUN, *names)
    runs = {obj["metadata"]["name"]: obj for obj in found.get("items", [found])}
    return [name for name in names if condition(runs[name], "Finished").get("status") != "True"]


def _kill(cluster: Cluster, team: Kubectl, chance: random.Random, marks: Marks) -> None:
    unhurt = "engine" if not marks.engine else "step pod" if not marks.step_pods else ""  # all may end soon
    what = unhurt or chance.choices(("engine", "step pod", "agent"), weights=(3, 3, 1))[0]
    if what == "engine":
        if not _serves(team) and chance.randrange(100) < SPARED_PERCENT:
            return
        if kill_some(processes(team, [ENGINE], "fairlead.")):
            marks.engine += 1
            team("delete", "pod", ENGINE, "--wait=false", "--ignore-not-found")  # a new one: nothing backs off for it
    elif what == "step pod":
        found = processes(team, _step_pods(team))
        marks.step_pods += kill_some(chance.sample(found, min(len(found), 1 + chance.randrange(MOST_AT_A_TIME))))
    else:
        cluster.stop_process("kubelet")
        marks.agent += 1
        time.sleep(chance.uniform(0.0, LONGEST_WITHOUT_AGENT_SECONDS))
        cluster.start_process("kubelet")


def _serves(team: Kubectl) -> bool:
    return bool(team.get("statefulset", "fairlead-engine")["status"].get("readyReplicas"))


def _step_pods(team: Kubectl) -> list[str]:
    found = team.get("pods", "--selector=fairlead.dev/component=step")["items"]
    return [pod["metadata"]["name"] for pod in found]


def _judge(team: Kubectl, marks: Marks) -> None:
    effects = ledger(team)
    done = Counter(entry["key"] for entry in effects)
    with suppress(AssertionError):
        until("pods of steps are gone", lambda: not _step_pods(team), timeout_seconds=60)
    marks.pods_left = len(_step_pods(team))
    marks.repeated = sum(count > 1 for count in done.values())
    objects = team.get(RUN)["items"]
    until("the engine serves", lambda: _serves(team), timeout_seconds=180)
    records, calls = audited.exported(team), kitchensink.calls_of(objects)
    found = [*audited.verified(team), *audited.gaps(effects, records, calls)]
    marks.audit_gaps = len(found)
    print("".join(f"audit: {gap}\n" for gap in found), end="", file=sys.stderr)
    told = audited.acknowledged(records)
    for obj in objects:
        name = obj["metadata"]["name"]
        if not name.startswith("sink-"):
            continue  # a child's end is its parent's business
        succeeded, owed = condition(obj, "Succeeded"), kitchensink.effects_of(name).keys()
        if condition(obj, "Finished").get("status") != "True":
            marks.not_ended += 1
            continue
        if succeeded["status"] == "True":
            marks.completed += 1
            marks.lost += len(owed - done.keys())
            continue
        marks.lost += sum(calls.get(key) in told for key in owed - done.keys())
        if succeeded["reason"] == "OutcomeUnknown":
            marks.unknown += 1
        else:
            marks.failed += 1
            print(f"{name}: {succeeded['reason']}: {succeeded['message']}", file=sys.stderr)


def main() -> int:
    """Examine on a cluster of its own and write the table. 1 if anything is wrong, repeated, lost or unrecorded."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.exam", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="create no further run after so many")
    parser.add_argument("--seed", type=int, default=20261127)
    parser.add_argument("--keep-document", action="store_true", help="do not write docs/performance.md")
    arguments = parser.parse_args()
    cluster = Cluster("exam")
    try:
        cluster.up()
        load_images(cluster)
        environment = cluster.environment()
        fairlead = Fairlead(Kubectl(environment["KUBECONFIG"], environment["PATH"]), environment)
        fairlead.install()
        team = scene(fairlead.kubectl, arguments.runs)
        began = time.monotonic()
        chance = random.Random(arguments.seed)
        marks = examine(cluster, team, arguments.runs, chance=chance, minutes=arguments.minutes)
        minutes = (time.monotonic() - began) / 60
    finally:
        cluster.down()
    table = f"{HEAD}\n{marks}\n\nIn {minutes:.0f} minutes, {AT_ONCE} at once."
    print(table)
    if not arguments.keep_document:
        here = report.machine_table(machine.describe(DOCUMENT.parent))
        report.update(DOCUMENT, "kitchensink", f"{here}\n\n{table}")
    return int(not marks.passed)


def scene(administrator: Kubectl, runs: int) -> Kubectl:
    """Make a restricted namespace where so many kitchen sinks can run, and return kubectl within it."""
    name = f"exam-{uuid.uuid4().hex[:8]}"
    administrator("create", "namespace", name)
    administrator("label", "namespace", name, RESTRICTED)
    team = administrator.within(name)
    kitchensink.declare(team, map(kitchensink.run_name, range(runs)))
    return team


if __name__ == "__main__":
    sys.exit(main())
