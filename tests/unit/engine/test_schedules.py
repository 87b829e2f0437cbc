"""A schedule makes one run for each of its times: not none, not two, whatever happens in between."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from tests.unit.engine.fakecluster import FakeCluster
from tests.unit.engine.fakes import READY, FakeClock, tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.schedules import (
    LATE_MS,
    RETRY_MS,
    SCHEDULE_LABEL,
    SCHEDULED_AT,
    scheduled_run,
    schedules_of,
)
from fairlead.errors import Unreachable
from fairlead.flow.journal import RunUid

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NIGHTLY = {"name": "nightly", "cron": "0 2 * * *", "timeZone": "Europe/Paris"}


def at(clock: FakeClock, text: str) -> None:
    """Set the clock to a time in UTC."""
    clock.now = int(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)


def scheduled(*schedules: dict[str, Any], **more: Any) -> Any:
    triggers = {"schedules": list(schedules or (NIGHTLY,))}
    return workflow(tool_step("a"), triggers=triggers, retention={"succeeded": 100}, **more)


@pytest.fixture
def cluster(world: World) -> FakeCluster:
    world.sink = world.cluster = FakeCluster()
    world.resources.workflows["w"] = scheduled()
    at(world.clock, "2026-01-01T12:00")
    return world.cluster


async def look(engine: WorkflowEngine) -> int | None:
    assert engine.schedules is not None
    return await engine.schedules.look()


def times(cluster: FakeCluster) -> list[str]:
    """What the runs were made for."""
    return sorted(raw["metadata"]["annotations"][SCHEDULED_AT] for raw in cluster.objects.values())


async def test_a_due_time_becomes_a_run_that_is_executed(world: World, cluster: FakeCluster) -> None:
    world.resources.workflows["w"] = scheduled(NIGHTLY | {"input": {"n": 1}})
    async with world.engine() as engine:
        upcoming = await look(engine)
        assert cluster.objects == {}
        at(world.clock, "2026-01-02T01:00")
        assert upcoming == world.clock.now
        await look(engine)
        (raw,) = cluster.objects.values()
        await world.until(lambda: world.succeeded(raw["metadata"]["name"]) == ("True", "Completed"))
        (accepted, *_) = await engine.store.load(RunUid(raw["metadata"]["uid"]))
    assert raw["metadata"]["name"].startswith("w-") and raw["metadata"]["generateName"] == "w-"
    assert raw["metadata"]["labels"] == {SCHEDULE_LABEL: "nightly"}
    assert times(cluster) == ["2026-01-02T01:00:00Z"]
    assert raw["spec"] == {"workflow": "w", "input": {"n": 1}}
    assert accepted.data["scheduledAt"] == world.clock.now and "requestedBy" not in accepted.data


async def test_expressions_know_what_time_a_run_was_made_for(world: World, cluster: FakeCluster) -> None:
    output = {"for": "$( run.scheduledAt )"}
    world.resources.workflows["w"] = scheduled(output=output)
    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00:07")
        await look(engine)
        (raw,) = cluster.objects.values()
        await world.until(lambda: world.succeeded(raw["metadata"]["name"]) is not None)
        await world.until(lambda: world.sink.of(raw["metadata"]["name"])[-1].get("output") is not None)
        assert world.sink.of(raw["metadata"]["name"])[-1]["output"] == {"for": "2026-01-02T01:00:00.000Z"}
        copied = run_object(1)
        copied["metadata"] |= {key: raw["metadata"][key] for key in ("labels", "annotations")}
        state = await asyncio.wait_for(engine.submit(copied), 20)
    assert state.terminal is not None and state.terminal.output == {"for": None}


@pytest.mark.parametrize("lost", ["the request", "the answer"])
async def test_a_crash_between_run_and_row_makes_neither_none_nor_two(
    world: World, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    create = cluster.create_run

    async def breaks(run: Any) -> Any:
        if lost == "the answer":
            await create(run)
        raise Unreachable(0, "no answer")

    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        monkeypatch.setattr(cluster, "create_run", breaks)
        assert await look(engine) == world.clock.now + 5_000
    assert len(cluster.objects) == (lost == "the answer")
    monkeypatch.undo()
    world.clock.now += 5_000
    for _ in range(2):
        async with world.engine(objects=list(cluster.objects.values())) as engine:
            await look(engine)
            await world.until(lambda: engine.runs.roster.all() == [])
    assert times(cluster) == ["2026-01-02T01:00:00Z"]
    assert world.gate.dispatched == ["a:read"]


@pytest.mark.parametrize("labels", [{}, {SCHEDULE_LABEL: "other"}], ids=["without a label", "of another schedule"])
async def test_a_run_that_somebody_made_beforehand_is_not_taken_for_the_schedule_s(
    world: World, cluster: FakeCluster, labels: dict[str, str]
) -> None:
    told: list[str] = []
    world.resources.workflows["w"] = scheduled(NIGHTLY | {"input": {"n": 1}})
    async with world.engine(on_taken=lambda workflow, why: told.append(why)) as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        declared = world.resources.workflows["w"]
        due = scheduled_run(declared, schedules_of(declared)[0], world.clock.now)
        foreign = {**due, "metadata": {**due["metadata"], "uid": "foreign", "labels": labels}}
        cluster.add({**foreign, "spec": {"workflow": "w", "input": {"n": 666}}})
        assert await look(engine) == world.clock.now + RETRY_MS
        (said,) = told
        assert due["metadata"]["name"] in said and said.startswith("schedule nightly: the run of 2026-01-02T01:00:00Z")
        cluster.objects.clear()
        await look(engine)
        assert [raw["spec"] for raw in cluster.objects.values()] == [due["spec"]], "it is made once the name is free"
        cluster.objects.clear()
        await look(engine)
        assert cluster.objects == {} and len(told) == 1


async def test_a_time_is_not_made_again_after_its_run_was_deleted(world: World, cluster: FakeCluster) -> None:
    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
    cluster.objects.clear()
    async with world.engine() as engine:
        await look(engine)
    assert cluster.objects == {}


OUTAGES: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "one run for the last time that was missed": ({}, "2026-01-05T10:00", ["2026-01-05T01:00:00Z"]),
    "said in words": ({"whenMissed": "RunOnce"}, "2026-01-05T10:00", ["2026-01-05T01:00:00Z"]),
    "none where they are skipped": ({"whenMissed": "Skip"}, "2026-01-05T10:00", []),
    "a little late is not missed": ({"whenMissed": "Skip"}, "2026-01-02T01:01", ["2026-01-02T01:00:00Z"]),
    "nothing was missed": ({}, "2026-01-02T00:59", []),
}


@pytest.mark.parametrize(("schedule", "back", "made"), OUTAGES.values(), ids=OUTAGES.keys())
async def test_what_becomes_of_times_that_passed_during_an_outage(
    world: World, cluster: FakeCluster, schedule: dict[str, Any], back: str, made: list[str]
) -> None:
    world.resources.workflows["w"] = scheduled(NIGHTLY | schedule)
    async with world.engine() as engine:
        await look(engine)
    at(world.clock, back)
    async with world.engine() as engine:
        await look(engine)
        assert times(cluster) == made
        at(world.clock, "2026-01-06T01:00")
        await look(engine)
    assert times(cluster) == [*made, "2026-01-06T01:00:00Z"]


async def test_a_workflow_that_is_not_ready_makes_no_run(world: World, cluster: FakeCluster) -> None:
    wrong = {"conditions": [READY | {"status": "False", "reason": "InvalidSpec"}]}
    async with world.engine() as engine:
        await look(engine)
        world.resources.workflows["w"] = scheduled(status=wrong)
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
        assert cluster.objects == {}
        world.resources.workflows["w"] = scheduled()
        world.clock.now += LATE_MS + 1
        await look(engine)
    assert times(cluster) == ["2026-01-02T01:00:00Z"], "as after an outage"


@pytest.mark.parametrize("how", ["the Workflow is deleted", "the schedule is gone", "another Workflow has its name"])
async def test_what_is_deleted_makes_no_run(world: World, cluster: FakeCluster, how: str) -> None:
    async with world.engine() as engine:
        await look(engine)
        again = scheduled()
        again = again.model_copy(update={"metadata": again.metadata.model_copy(update={"uid": "another"})})
        found = {
            "the Workflow is deleted": {},
            "the schedule is gone": {"w": workflow(tool_step("a"))},
            "another Workflow has its name": {"w": again},
        }
        world.resources.workflows = found[how]
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
        assert cluster.objects == {}
        assert ("uid-w", "nightly") not in await engine.store.schedules()


async def test_a_changed_schedule_begins_anew(world: World, cluster: FakeCluster) -> None:
    async with world.engine() as engine:
        await look(engine)
        world.resources.workflows["w"] = scheduled(NIGHTLY | {"cron": "0 11 * * *"})
        at(world.clock, "2026-01-01T23:00")  # had it always been so, it would have missed 10:00
        await look(engine)
        assert cluster.objects == {}
        at(world.clock, "2026-01-02T10:00")
        await look(engine)
    assert times(cluster) == ["2026-01-02T10:00:00Z"]


async def test_schedules_of_one_time_have_a_run_each(world: World, cluster: FakeCluster) -> None:
    world.resources.workflows["w"] = scheduled(NIGHTLY, {"name": "other", "cron": "0 1 * * *"})
    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
    assert times(cluster) == ["2026-01-02T01:00:00Z"] * 2
    assert len(cluster.objects) == 2


async def test_one_schedule_that_cannot_be_made_holds_no_other_up(
    world: World, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.resources.workflows["v"] = workflow(
        tool_step("a"), name="v", triggers={"schedules": [NIGHTLY]}, retention={"succeeded": 1}
    )
    create = cluster.create_run

    async def refuses_w(run: Any) -> Any:
        if run["spec"]["workflow"] == "w":
            raise Unreachable(0, "no answer")
        return await create(run)

    monkeypatch.setattr(cluster, "create_run", refuses_w)
    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
    assert [raw["spec"]["workflow"] for raw in cluster.objects.values()] == ["v"]


async def test_the_workflow_says_when_it_runs_next(world: World, cluster: FakeCluster) -> None:
    def next_time() -> Any:
        statuses = cluster.of("w", "Workflow")
        return statuses[-1].get("nextScheduleTime") if statuses else None

    async with world.engine():
        await world.until(lambda: next_time() == "2026-01-02T01:00:00Z")
    at(world.clock, "2026-01-02T01:00")
    async with world.engine() as engine:
        await look(engine)
        await world.until(lambda: next_time() == "2026-01-03T01:00:00Z")


async def test_runs_of_schedules_are_nobodys_and_go_by_retention(world: World, cluster: FakeCluster) -> None:
    world.resources.workflows["w"] = workflow(
        tool_step("a"), triggers={"schedules": [NIGHTLY]}, retention={"ttlSecondsAfterFinished": 3600}
    )
    async with world.engine() as engine:
        await look(engine)
        at(world.clock, "2026-01-02T01:00")
        await look(engine)
        (raw,) = cluster.objects.values()
        await world.until(lambda: world.succeeded(raw["metadata"]["name"]) == ("True", "Completed"))
        world.clock.now += HOUR_MS
        assert engine.sweeper is not None
        await engine.sweeper.sweep()
        await look(engine)
        assert cluster.objects == {} and engine.store.knows(uid_of(raw))
