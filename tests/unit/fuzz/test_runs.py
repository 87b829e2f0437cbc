"""Poison WorkflowRuns and Approvals: whatever stands in their spec or status, the engine does what it may and goes on.

Runs are met, seen again and taken over after a restart; Approvals are looked at for a run that waits, and for none. No
run does what only a signal or people could let it do, and a healthy one beside them ends well.
"""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.specimens import specimen, status_of
from tests.unit.engine.approvalworld import SIGN, Asked, parked, reason_of
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import World, run_object
from tests.unit.engine.test_poison import nested
from tests.unit.fuzz.test_objects import poisoned_parts

from fairlead.api.workflow import Retention
from fairlead.engine.retention import surplus

MANY = 6
BATCH = settings(max_examples=30, deadline=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
FINISHED = {"type": "Finished", "status": "True", "reason": "Finished", "lastTransitionTime": "2026-01-01T00:00:00Z"}

pytestmark = [pytest.mark.requirement("A25"), pytest.mark.requirement("A34")]


def _runs() -> Iterator[dict[str, Any]]:
    """Yield what poison is put into: a child that goes on from another run, a run of its own, one that has ended."""
    spec, status = specimen("WorkflowRun")["spec"] | {"workflow": "w"}, status_of("WorkflowRun")
    alone = {key: value for key, value in spec.items() if key not in ("parent", "retryFrom")}
    yield {"spec": spec, "status": status}
    yield {"spec": alone, "status": {key: value for key, value in status.items() if key != "store"}}
    yield {"spec": alone, "status": status | {"conditions": [*status["conditions"], FINISHED]}}


def _is_short(found: dict[str, Any]) -> bool:
    """Tell whether it is a run of a second: it waits for that on a clock that stands still."""
    return isinstance(found["spec"], dict) and found["spec"].get("timeoutSeconds") is True


RUNS = st.one_of([poisoned_parts(one) for one in _runs()]).filter(lambda found: not _is_short(found))


@given(st.lists(RUNS, min_size=MANY, max_size=MANY))
@BATCH
def test_a_poison_run_is_refused_or_waits_and_the_others_end(found: list[dict[str, Any]]) -> None:
    async def holds(path: Path) -> None:
        never = {"name": "never", "wait": {"signal": {"name": "never"}}}
        healthy = workflow(tool_step("a"), name="healthy")
        world = World(path, workflow(never, tool_step("after", "send")), healthy)
        known = [run_object(number) for number in range(MANY)]
        met = [run_object(MANY + number) | one for number, one in enumerate(found)]
        seen = [raw | one for raw, one in zip(known, found, strict=True)]
        async with world.engine() as engine:
            for raw in known:
                engine.submit(raw)
            await world.until(lambda: engine.runs.roster.status("w")["waiting"] == MANY)
            for raw in [*met, *seen, *met]:
                engine.runs.observe(raw)
            await asyncio.wait_for(engine.submit(run_object(9998, workflow="healthy")), 20)
        async with world.engine(objects=[*seen, *met]) as engine:
            await asyncio.wait_for(engine.submit(run_object(9999, workflow="healthy")), 20)
        assert world.gate.dispatched == ["a:read", "a:read"]

    _within_a_directory(holds)


@pytest.mark.parametrize("number", range(5))
async def test_an_end_whose_output_cannot_be_recorded_is_an_end(number: int, tmp_path: Path) -> None:
    healthy = workflow(tool_step("a"), name="healthy")
    world = World(tmp_path / "journal.db", workflow({"name": "nap", "wait": {"seconds": 60}}), healthy)
    conditions = [FINISHED, FINISHED | {"type": "Succeeded"}]
    output = ("\ud800", {"a\udfff": 1}, {"n": 10**400}, nested(252), "a" * 1_000_000)[number]
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        engine.runs.observe(run_object(status={"conditions": conditions, "output": output}))
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
        await asyncio.wait_for(engine.submit(run_object(1, workflow="healthy")), 20)


@given(RUNS)
@settings(max_examples=200, deadline=None, suppress_health_check=[*HealthCheck], phases=[Phase.generate])
def test_a_poison_run_is_in_the_way_of_no_retention(found: dict[str, Any]) -> None:
    ended = run_object() | {"status": {"conditions": [FINISHED, FINISHED | {"type": "Succeeded"}]}}
    ended["metadata"]["generateName"] = "run-"
    poison = run_object(1) | found
    poison["metadata"]["generateName"] = "run-"
    assert ended in surplus([poison, ended], {"w": Retention(succeeded=0, failed=0)}, now_ms=0)


@pytest.mark.parametrize("conditions", [None, "x", [None], [[], FINISHED], [FINISHED | {"lastTransitionTime": "x"}]])
def test_a_status_that_cannot_be_read_says_no_end_or_its_own(conditions: Any) -> None:
    poison = run_object() | {"status": {"conditions": conditions}}
    poison["metadata"]["generateName"] = "run-"
    surplus([poison], {"w": Retention(succeeded=0, failed=0)}, now_ms=0)


APPROVAL = {"spec": specimen("Approval")["spec"], "status": status_of("Approval")}
ONE_OF_TWO = [{"by": "alice", "decision": "Approve", "reason": "fine"}]


def _asked(spec: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw what somebody makes of an Approval of which one of two people has approved."""
    return poisoned_parts({"spec": copy.deepcopy(spec) | {"decisions": ONE_OF_TWO}, "status": status_of("Approval")})


@given(st.data(), st.lists(poisoned_parts(APPROVAL), min_size=MANY, max_size=MANY))
@BATCH
def test_a_poison_approval_approves_nothing_and_the_others_are_heard(
    data: st.DataObject, strays: list[dict[str, Any]]
) -> None:
    async def holds(path: Path) -> None:
        terms = {"from": {"users": ["alice", "bob"]}, "minApprovals": 2, "message": "Go on?"}
        world = Asked(path, SIGN | {"approval": terms}, tool_step("after", "send"))
        raws = [run_object(number, requestedBy="carol") for number in range(MANY)]
        async with world.engine() as engine:
            for raw in raws:
                engine.submit(raw)
            names = list(await world.asks(engine, MANY))
            await world.until(lambda: all(parked(engine, raw) for raw in raws))
            for number, name in enumerate(names[1:]):
                obj = world.people.objects[name]
                world.people.objects[name] = {**obj, **data.draw(_asked(obj["spec"]))}
                stray = f"stray-{number}"
                world.people.objects[stray] = {"metadata": {"name": stray, "uid": stray}, **strays[number]}
            for name in [*world.people.objects]:
                engine.approvals.observe(name)
            await world.until(lambda: not engine.approvals._inbox)
        async with world.engine(objects=raws) as engine:
            world.people.observe = engine.approvals.observe
            for name in [*world.people.objects]:
                engine.approvals.observe(name)
            ended = engine.runs.end_of(raws[0]["metadata"]["uid"])
            for by in ("alice", "bob"):
                world.people.decide(names[0], by=by)
            assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"
        assert [call.function for call in world.sent] == ["send"]

    _within_a_directory(holds)


@pytest.mark.parametrize(
    "terms", [{"minApprovals": 1}, {"from": {"users": ["mallory"]}}, {"from": {"groups": ["all"]}}]
)
async def test_who_must_approve_says_the_journal_not_the_object(terms: dict[str, Any], tmp_path: Path) -> None:
    asked = {"from": {"users": ["alice", "bob"]}, "minApprovals": 2, "message": "Go on?"}
    world = Asked(tmp_path / "journal.db", SIGN | {"approval": asked}, tool_step("after", "send"))
    async with world.engine() as engine:
        ended = engine.submit(run_object(requestedBy="carol"))
        (name,) = await world.asks(engine)
        obj = world.people.objects[name]
        world.people.objects[name] = {**obj, "spec": obj["spec"] | terms}
        for by in ("mallory", "alice"):
            world.people.decide(name, by=by)
        await world.until(lambda: not engine.approvals._inbox)
        await asyncio.sleep(0.05)
        assert not ended.done() and not world.sent
        world.people.decide(name, by="bob")
        assert reason_of(await asyncio.wait_for(ended, 20)) == "Completed"


def _within_a_directory(holds: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(holds(Path(directory) / "journal.db"))
