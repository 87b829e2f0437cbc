"""What has ended goes when it is old or one too many, and is never executed again, whatever remains of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakecluster import FakeCluster, rfc3339
from tests.unit.engine.fakes import T0, tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.api.workflow import Retention
from fairlead.engine.engine import WorkflowEngine
from fairlead.engine.retention import JOURNAL_MS, TOMBSTONE_MS, surplus
from fairlead.errors import Unreachable

DAY_MS = 86_400_000


def made(number: int, **spec: Any) -> dict[str, Any]:
    """A run as `generateName` makes it; `run_object` alone is one that somebody named."""
    raw = run_object(number, **spec)
    raw["metadata"]["generateName"] = "run-"
    return raw


def ended(number: int, *, at_ms: int, succeeded: bool = True, workflow: str = "w", named: bool = False) -> Any:
    status = str(succeeded)
    since = rfc3339(at_ms)
    conditions = [
        {"type": "Finished", "status": "True", "lastTransitionTime": since},
        {"type": "Succeeded", "status": status, "lastTransitionTime": since},
    ]
    make = run_object if named else made
    return make(number, workflow=workflow) | {"status": {"conditions": conditions}}


OPEN = made(9) | {"status": {"conditions": [{"type": "Finished", "status": "False"}]}}
KEPT: dict[str, tuple[dict[str, int], list[Any], list[str]]] = {
    "what is older than the TTL goes": (
        {"ttlSecondsAfterFinished": 60},
        [ended(0, at_ms=T0 - 60_000), ended(1, at_ms=T0 - 59_000), ended(2, at_ms=T0 - 90_000, succeeded=False)],
        ["run-2", "run-0"],
    ),
    "so many that ended well stay, the latest": (
        {"succeeded": 1},
        [ended(0, at_ms=T0 - 3), ended(1, at_ms=T0 - 1), ended(2, at_ms=T0 - 2), ended(3, at_ms=T0, succeeded=False)],
        ["run-0", "run-2"],
    ),
    "so many that ended otherwise stay, the latest": (
        {"failed": 1},
        [ended(0, at_ms=T0 - 2, succeeded=False), ended(1, at_ms=T0 - 1, succeeded=False), ended(2, at_ms=T0 - 9)],
        ["run-0"],
    ),
    "none stays where none shall": ({"succeeded": 0, "failed": 0}, [ended(0, at_ms=T0), OPEN], ["run-0"]),
    "each bound holds by itself": (
        {"ttlSecondsAfterFinished": 60, "succeeded": 1},
        [ended(0, at_ms=T0 - 60_000), ended(1, at_ms=T0 - 61_000)],
        ["run-1", "run-0"],
    ),
    "what goes on stays": ({"ttlSecondsAfterFinished": 0}, [OPEN, made(1)], []),
    "what somebody named stays and does not count": (
        {"ttlSecondsAfterFinished": 60, "succeeded": 1},
        [ended(0, at_ms=T0 - 70_000, named=True), ended(1, at_ms=T0 - 9), ended(2, at_ms=T0, named=True)],
        [],
    ),
    "what belongs to another Workflow stays": (
        {"ttlSecondsAfterFinished": 0},
        [ended(0, at_ms=T0 - 9, workflow="v")],
        [],
    ),
}


@pytest.mark.parametrize(("retention", "objects", "gone"), KEPT.values(), ids=KEPT.keys())
def test_which_runs_go(retention: dict[str, int], objects: list[Any], gone: list[str]) -> None:
    chosen = surplus(objects, {"w": Retention.model_validate(retention)}, now_ms=T0)
    assert [obj["metadata"]["name"] for obj in chosen] == gone


@pytest.fixture
def cluster(world: World) -> FakeCluster:
    world.sink = world.cluster = FakeCluster()
    return world.cluster


def keep(world: World, **retention: int) -> None:
    spec = {"retention": retention} if retention else {}
    world.resources.workflows["w"] = workflow(tool_step("a"), **spec)


async def execute(engine: WorkflowEngine, world: World, *raws: dict[str, Any]) -> None:
    """Run objects to their end, as their statuses say it."""
    for raw in raws:
        await asyncio.wait_for(engine.submit(world.cluster.add(raw)), 20)
        await world.until(lambda raw=raw: world.succeeded(raw["metadata"]["name"]) == ("True", "Completed"))  # type: ignore[misc]


async def sweep(engine: WorkflowEngine) -> None:
    assert engine.sweeper is not None
    await engine.sweeper.sweep()


async def test_finished_runs_go_with_their_journals(world: World, cluster: FakeCluster) -> None:
    keep(world, ttlSecondsAfterFinished=60)
    async with world.engine() as engine:
        await execute(engine, world, made(0))
        world.clock.now += 61_000
        await execute(engine, world, made(1))
        await sweep(engine)
        assert list(cluster.objects) == ["run-1"]
        assert [row.name for row in await engine.store.runs()] == ["run-1"]
        assert engine.runs.roster.status("w")["succeeded"] == 1
    async with world.engine(objects=list(cluster.objects.values())) as engine:
        assert engine.runs.roster.status("w")["succeeded"] == 1


async def test_without_retention_runs_stay(world: World, cluster: FakeCluster) -> None:
    keep(world)
    async with world.engine() as engine:
        await execute(engine, world, made(0))
        world.clock.now += 365 * DAY_MS
        await sweep(engine)
    assert list(cluster.objects) == ["run-0"]


@pytest.mark.requirement("A64")
async def test_a_run_that_somebody_named_is_left_and_never_executed_twice(world: World, cluster: FakeCluster) -> None:
    keep(world, ttlSecondsAfterFinished=0, succeeded=0, failed=0)
    async with world.engine() as engine:
        await execute(engine, world, run_object(0))
        world.clock.now += JOURNAL_MS
        await sweep(engine)
        assert await engine.store.runs() == []
        world.clock.now += TOMBSTONE_MS
        await sweep(engine)
    assert list(cluster.objects) == ["run-0"]
    applied_again = run_object(0)  # as if nothing had ever been said about it
    async with world.engine(objects=[applied_again]) as engine:
        engine.runs.observe(applied_again)
        await execute(engine, world, made(1))
    assert world.gate.dispatched == ["a:read"] * 2


async def test_a_journal_outlives_neither_its_object_nor_its_time(world: World, cluster: FakeCluster) -> None:
    keep(world)
    async with world.engine() as engine:
        await execute(engine, world, run_object(0), run_object(1))
        del cluster.objects["run-0"]
        await sweep(engine)
        assert [row.name for row in await engine.store.runs()] == ["run-1"]
        assert engine.store.knows(uid_of(run_object(0)))
        world.clock.now += JOURNAL_MS
        await sweep(engine)
        assert await engine.store.runs() == []
        world.clock.now += TOMBSTONE_MS
        await sweep(engine)
        assert not engine.store.knows(uid_of(run_object(0))) and engine.store.knows(uid_of(run_object(1)))


async def test_a_journal_stays_until_its_object_says_how_it_ended(world: World, cluster: FakeCluster) -> None:
    keep(world)
    async with world.engine() as engine:
        await execute(engine, world, run_object(0))
        del cluster.objects["run-0"]["status"]
        world.clock.now += JOURNAL_MS
        await sweep(engine)
        assert [row.name for row in await engine.store.runs()] == ["run-0"]


@pytest.mark.parametrize("deleted", [0, 1, 2])
async def test_a_sweep_that_broke_off_is_finished_by_the_next(world: World, cluster: FakeCluster, deleted: int) -> None:
    keep(world, succeeded=1)
    async with world.engine() as engine:
        await execute(engine, world, *(made(number) for number in range(4)))
        cluster.broken = (deleted, Unreachable(0, "no answer"))
        await sweep(engine)
        assert len(cluster.objects) == 4 - deleted
    cluster.broken = None
    async with world.engine(objects=list(cluster.objects.values())) as engine:
        await sweep(engine)
        await world.until(lambda: len(cluster.objects) == 1)
        await sweep(engine)
        assert [row.name for row in await engine.store.runs()] == list(cluster.objects)
    assert world.gate.dispatched == ["a:read"] * 4


async def test_one_sweep_does_a_bounded_part(
    world: World, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.engine.retention.PER_SWEEP", 2)
    keep(world, succeeded=0)
    async with world.engine() as engine:
        await execute(engine, world, *(made(number) for number in range(5)))
        left = []
        for _ in range(3):
            await sweep(engine)
            left.append((len(cluster.objects), len(await engine.store.runs())))
    assert left == [(3, 3), (1, 1), (0, 0)]


async def test_a_journal_stays_while_an_open_run_goes_on_from_it(world: World, cluster: FakeCluster) -> None:
    keep(world, succeeded=0)
    async with world.engine() as engine:
        await execute(engine, world, made(0))
        world.resources.workflows["w"] = workflow(
            {"name": "nap", "wait": {"seconds": 600}}, tool_step("a"), retention={"succeeded": 0}
        )
        engine.submit(cluster.add(made(1, retryFrom={"run": "run-0"})))
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        await sweep(engine)
        assert (list(cluster.objects), list(engine.store.ended_runs())) == (["run-1"], [uid_of(run_object(0))])
    async with world.engine(objects=list(cluster.objects.values())) as engine:
        await sweep(engine)
        world.clock.now += 601_000
        engine.runs.wake()
        await world.until(lambda: world.succeeded("run-1") == ("True", "Completed"))
        await sweep(engine)
        assert uid_of(run_object(0)) not in engine.store.ended_runs()
    assert world.gate.dispatched == ["a:read"]
