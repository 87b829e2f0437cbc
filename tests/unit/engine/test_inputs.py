"""An input that stands in a ConfigMap: read once, waited for a little, and then the run's own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.unit.engine.fakecluster import FakeCluster
from tests.unit.engine.fakes import FakeGate, tool_step, workflow
from tests.unit.engine.runworld import World, hanging, killed, open_engine, run_object, uid_of

from fairlead.engine.acceptance import GRACE_MS, INPUT_BYTES, INPUT_FROM_BYTES
from fairlead.engine.inputs import RETRY_MS
from fairlead.errors import KubeError, Unreachable

FROM = {"configMap": {"name": "big", "key": "input.json"}}


@pytest.fixture
def cluster(world: World) -> FakeCluster:
    world.cluster = FakeCluster()
    world.resources.workflows["w"] = workflow(tool_step("a"), output="$( input.n )")
    return world.cluster


def has(cluster: FakeCluster, value: Any) -> None:
    cluster.config_maps["big"] = {"input.json": value if isinstance(value, str) else json.dumps(value)}


async def test_the_input_is_read_at_acceptance_and_frozen(world: World, cluster: FakeCluster) -> None:
    has(cluster, {"n": 1, "more": "x" * INPUT_BYTES})
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object(inputFrom=FROM)
    async with killed(await open_engine(world), begun, raw):
        pass
    has(cluster, {"n": 2})
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        assert world.sink.of("run-0")[-1]["output"] == 1
        (accepted, *_) = await engine.store.load(uid_of(raw))
    assert len(accepted.data["input"]["more"]) == INPUT_BYTES


REFUSED: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "ConfigMap big, key input.json: this is no JSON"),
    "too deep": ("[" * 100_000, "this is no JSON"),
    "no object": ([1], "an object is needed"),
    "too large": ({"n": "x" * INPUT_FROM_BYTES}, f"at most {INPUT_FROM_BYTES} are allowed"),
    "does not fit": ({"n": "one"}, "/n"),
}


@pytest.mark.parametrize(("value", "words"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_wrong_input_ends_the_run_and_says_what_is_wrong(
    world: World, cluster: FakeCluster, value: Any, words: str
) -> None:
    schema = {"properties": {"n": {"type": "integer"}}}
    world.resources.workflows["w"] = workflow(
        tool_step("a"), input={"schema": schema if words == "/n" else {"type": "object"}}
    )
    has(cluster, value)
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(inputFrom=FROM)), 20)
    assert state.terminal is not None and state.terminal.reason == "InvalidInput"
    assert words in state.terminal.message
    assert world.gate.dispatched == []


@pytest.mark.parametrize("found", [{}, {"big": {"other": "{}"}}], ids=["no ConfigMap", "no such key"])
@pytest.mark.parametrize("comes", [True, False])
async def test_what_is_not_there_is_waited_for_a_little(
    world: World, cluster: FakeCluster, found: dict[str, Any], comes: bool
) -> None:
    cluster.config_maps = dict(found)
    async with world.engine() as engine:
        await world.until(lambda: engine.authorizations.of("w") is not None)
        ended = engine.submit(run_object(inputFrom=FROM))
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "InputNotFound"))
        if comes:
            has(cluster, {"n": 1})
        world.clock.now += RETRY_MS if comes else GRACE_MS
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None
    assert state.terminal.reason == ("Completed" if comes else "InvalidInput")


@pytest.mark.parametrize("error", [Unreachable(0, "no answer"), KubeError(403, "not yet")])
async def test_an_api_server_without_an_answer_ends_no_run(
    world: World, cluster: FakeCluster, error: KubeError
) -> None:
    has(cluster, {"n": 1})
    cluster.broken = (0, error)
    async with world.engine() as engine:
        await world.until(lambda: engine.authorizations.of("w") is not None)
        ended = engine.submit(run_object(inputFrom=FROM))
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "InputNotFound"))
        cluster.broken = None
        world.clock.now += 2 * GRACE_MS
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.output == 1


async def test_nothing_is_read_before_everything_else_is_right(world: World, cluster: FakeCluster) -> None:
    has(cluster, {"n": 1})
    ready, world.resources.workflows["w"] = world.resources.workflows["w"], workflow(tool_step("a"), status={})
    cluster.broken = (0, AssertionError("it was read"))
    async with world.engine() as engine:
        ended = engine.submit(run_object(inputFrom=FROM))
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "WorkflowNotReady"))
        cluster.broken = None
        world.resources.workflows["w"] = ready
        engine.workflow_changed(["w"])
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.output == 1


async def test_the_concurrency_key_is_taken_from_the_input_that_was_read(world: World, cluster: FakeCluster) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), concurrency={"maxRuns": 1, "key": "$( input.n )"})
    has(cluster, {"n": 7})
    raw = run_object(inputFrom=FROM)
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(raw), 20)
        (accepted, *_) = await engine.store.load(uid_of(raw))
    assert accepted.data["concurrencyKey"] == "7"


async def test_without_a_cluster_there_is_nothing_to_read(world: World) -> None:
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(inputFrom=FROM)), 20)
    assert state.terminal is not None and "without a cluster" in state.terminal.message
