"""Runs when things go wrong: stores that differ, objects that vanish, code that breaks, engines that drain."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import (
    READY,
    FakeGate,
    FakeSink,
    at_once,
    tool_step,
    workflow,
)
from tests.unit.engine.runworld import World, hanging, killed, open_engine, run_object, uid_of

from fairlead.engine.log import RunLog
from fairlead.engine.runs import FIRST_RETRY_MS
from fairlead.engine.store.rows import Batch
from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.next import CLOSING_GRACE_MS
from fairlead.policy.decision import Authorization


@pytest.mark.requirement("G8")
@pytest.mark.parametrize("store", [{"id": "another", "sequence": 1}, {"id": None, "sequence": 99}])
async def test_a_run_that_the_store_does_not_know_as_far_as_its_status_is_lost(
    world: World, store: dict[str, Any]
) -> None:
    async with world.engine() as engine:
        own_id = engine.store.id
    raw = run_object(status={"store": {"id": store["id"] or own_id, "sequence": store["sequence"]}})
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("False", "StateLost"))
    assert world.gate.dispatched == []


@pytest.mark.requirement("G8")
async def test_a_run_of_which_the_store_knows_less_than_its_status_is_lost(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    engine = await open_engine(world)
    async with killed(engine, begun, run_object()):
        pass
    world.gate = FakeGate()
    raw = run_object(status={"store": {"id": engine.store.id, "sequence": 99}})
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("False", "StateLost"))
    assert world.gate.dispatched == []


@pytest.mark.requirement("G4")
async def test_a_finished_object_wins_over_an_open_journal(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    engine = await open_engine(world)
    async with killed(engine, begun, run_object()):
        pass
    world.gate, world.sink = FakeGate(), FakeSink()
    since = READY["lastTransitionTime"]
    ended = [
        {"type": "Finished", "status": "True", "reason": "Timeout", "lastTransitionTime": since},
        {"type": "Succeeded", "status": "False", "reason": "Timeout", "message": "late", "lastTransitionTime": since},
    ]
    async with world.engine(objects=[run_object(status={"conditions": ended})]) as again:
        await world.until(lambda: again.runs.roster.all() == [])
        row = await again.store.run(uid_of(run_object()))
    assert row is not None and row.state == "RunFailed"
    assert world.gate.dispatched == [] and world.sink.of("run-0") == []


@pytest.mark.requirement("F33")
async def test_a_run_whose_object_is_gone_after_a_restart_is_cancelled(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    engine = await open_engine(world)
    async with killed(engine, begun, run_object()):
        pass
    world.gate = FakeGate()
    async with world.engine() as again:
        await world.until(lambda: again.runs.roster.status("w")["waiting"] == 1)
        world.clock.now += CLOSING_GRACE_MS
        again.runs.wake()
        await world.until(lambda: again.runs.roster.all() == [])
        row = await again.store.run(uid_of(run_object()))
    assert row is not None and row.state == "RunCancelled"
    assert world.gate.dispatched == []


class Broken(FakeGate):
    """A gate with a bug that shows for one run only."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = True

    async def call(self, log: RunLog, call: Call) -> None:
        if self.broken and log.name == "run-0":
            raise ZeroDivisionError
        await super().call(log, call)


async def test_an_unexpected_error_sets_one_run_aside_and_leaves_the_others_alone(world: World) -> None:
    world.gate = Broken()
    async with world.engine() as engine:
        poisoned = engine.submit(run_object(0))
        await asyncio.wait_for(engine.submit(run_object(1)), 20)
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        assert not poisoned.done()
        (aside,) = engine.runs.roster.all()
        assert uid_of(run_object(0)).replace("-", "") in aside.note
        world.gate.broken = False
        world.clock.now += FIRST_RETRY_MS
        engine.runs.wake()
        state = await asyncio.wait_for(poisoned, 20)
    assert state.terminal is not None and state.terminal.kind is EntryKind.RUN_SUCCEEDED


@pytest.mark.requirement("G4")
async def test_a_run_that_always_breaks_still_ends_after_its_deadline(world: World) -> None:
    world.gate = Broken()
    async with world.engine() as engine:
        poisoned = engine.submit(run_object(0, timeoutSeconds=10))
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        world.clock.now += 10_000
        engine.runs.wake()
        state = await asyncio.wait_for(poisoned, 20)
    assert state.terminal is not None and state.terminal.reason == "Timeout"


async def test_a_store_that_fails_ends_the_engine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(batch: object) -> float:
        raise OSError("disk full")

    engine = await open_engine(world)
    await engine.recover({})
    serving = asyncio.create_task(engine.serve(asyncio.Event()))
    await asyncio.sleep(0)
    monkeypatch.setattr(engine.store._database, "commit", full)
    engine.submit(run_object())
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        await asyncio.wait_for(serving, 20)
    assert world.gate.dispatched == []


@pytest.mark.requirement("F13")
async def test_a_drained_engine_lets_a_recorded_call_finish_and_begins_nothing_more(world: World) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(call: Call) -> dict[str, Any]:
        begun.set()
        await release.wait()
        return {"result": {"text": "done"}}

    world.resources.workflows["w"] = workflow(tool_step("a", "send"), tool_step("b", "send"))
    world.gate = FakeGate(slow)
    raw = run_object()
    async with world.engine() as engine:
        engine.submit(raw)
        await begun.wait()
        asyncio.get_running_loop().call_later(0.05, release.set)
    assert world.gate.dispatched == ["a:send"]
    world.gate = FakeGate()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["b:send"]


async def test_progress_is_told_entry_by_entry_once_it_is_durable(world: World) -> None:
    told: list[str] = []
    async with world.engine() as engine:
        engine.subscribe(lambda entries: told.extend(entry.kind.value for entry in entries))
        await asyncio.wait_for(engine.submit(run_object()), 20)
        stored = [entry.kind.value for entry in await engine.store.load(uid_of(run_object()))]
    assert told == stored


async def test_the_workflow_says_what_its_account_misses(world: World) -> None:
    world.authorizer.verdict = Authorization("Denied")
    async with world.engine():
        await world.until(lambda: bool(world.sink.of("w", "Workflow")))
    status = world.sink.of("w", "Workflow")[-1]
    condition, flow = status["conditions"]
    assert (flow["type"], flow["status"]) == ("DataFlowSafe", "True")
    assert (condition["type"], condition["status"], condition["reason"]) == ("Authorized", "False", "MissingGrants")
    assert "invoke on toolfunctions/desk.read or invoke on tools/desk" in condition["message"]
    assert status["revision"].startswith("sha256:")


@pytest.mark.requirement("G4")
async def test_nothing_is_journaled_after_the_end(world: World) -> None:
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        before = await engine.store.load(uid_of(run_object()))
        assert engine.store.append(uid_of(run_object()), [Draft(EntryKind.STEP_STARTED)]) == []
        assert await engine.store.load(uid_of(run_object())) == before


@pytest.mark.requirement("G1")
@pytest.mark.parametrize("how", ["a part of it dies", "it is cancelled"])
async def test_what_an_engine_leaves_in_flight_the_next_goes_on_with(world: World, how: str) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    engine = await open_engine(world)
    await engine.recover({})

    async def dies() -> None:
        await begun.wait()
        if how == "it is cancelled":
            await asyncio.Event().wait()
        raise ZeroDivisionError

    engine.approvals.run = dies  # type: ignore[method-assign]
    serving = asyncio.create_task(engine.serve(asyncio.Event()))
    await asyncio.sleep(0)
    engine.submit(run_object())
    await asyncio.wait_for(begun.wait(), 20)
    if how == "it is cancelled":
        serving.cancel()
    (died,) = await asyncio.wait_for(asyncio.gather(serving, return_exceptions=True), 20)
    assert isinstance(died, BaseException)
    world.gate, world.sink = FakeGate(), FakeSink()
    async with world.engine(objects=[run_object()]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


async def test_an_error_in_one_call_fails_none_beside_it(world: World) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), tool_step("b", "send"), order="Graph")
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    whole = world.gate.call

    async def broken(log: RunLog, call: Call) -> None:
        if call.function == "send":
            await begun.wait()
            raise ZeroDivisionError
        await whole(log, call)

    world.gate.call = broken
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        world.gate.call, world.gate.answer = whole, at_once
        world.clock.now += FIRST_RETRY_MS
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.kind is EntryKind.RUN_SUCCEEDED


@pytest.mark.requirement("F12")
@pytest.mark.parametrize("input", [{"n": 1}, {}], ids=["accepted", "rejected"])
async def test_a_run_is_known_from_the_commit_of_its_first_entry_on(world: World, input: dict[str, int]) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), input={"schema": {"type": "object", "required": ["n"]}})
    known: list[tuple[set[str], set[str]]] = []
    async with world.engine() as engine:
        commit = engine.store._database.commit

        def watched(batch: Batch) -> float:
            known.append(({row["uid"] for row in batch.runs}, {row["run_uid"] for row in batch.rows}))
            return commit(batch)

        engine.store._database.commit = watched  # type: ignore[method-assign]
        await asyncio.wait_for(engine.submit(run_object(input=input)), 20)
    assert [begun <= written for begun, written in known if begun] == [True]


@pytest.mark.requirement("F12")
async def test_a_run_that_was_killed_before_its_first_entry_has_not_begun(world: World) -> None:
    raw = run_object()
    engine = await open_engine(world)
    engine.store.begin(uid_of(raw), namespace="team", name="run-0", workflow="w")
    await engine.store.close()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


@pytest.mark.requirement("G4")
async def test_a_run_that_is_taken_over_is_not_driven_once_its_object_has_ended(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw, engine = run_object(), await open_engine(world)
    async with killed(engine, begun, raw):
        pass
    world.gate = FakeGate()
    since = READY["lastTransitionTime"]
    ended = {"type": "Finished", "status": "True", "reason": "Timeout", "lastTransitionTime": since}
    again = await open_engine(world)
    await again.recover({uid_of(raw): raw})
    (run,) = again.runs.roster.all()
    again.runs.observe(run_object(status={"conditions": [ended]}))
    stop = asyncio.Event()
    serving = asyncio.create_task(again.serve(stop))
    await world.until(lambda: again.runs.roster.all() == [])
    assert run.task is None and world.gate.dispatched == []
    stop.set()
    await asyncio.wait_for(serving, 20)
