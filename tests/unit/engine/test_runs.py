"""Runs from acceptance to their end, on a real store with a scripted gate: what the engine guarantees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.fakes import (
    READY,
    FakeAuthorizer,
    FakeClock,
    FakeGate,
    FakeResources,
    FakeSink,
    tool_step,
    workflow,
)

from fairlead.api.workflow import Workflow
from fairlead.engine.acceptance import GRACE_MS
from fairlead.engine.engine import EngineOptions, WorkflowEngine
from fairlead.engine.log import RunLog
from fairlead.engine.runs import FIRST_RETRY_MS, RunOptions
from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind, RunUid
from fairlead.flow.next import CLOSING_GRACE_MS
from fairlead.policy.decision import Authorization

UID = RunUid("0f0e0d0c-0b0a-4908-8706-050403020100")


def run_object(number: int = 0, *, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    uid = UID[:-4] + f"{number:04d}"
    metadata = {"name": f"run-{number}", "namespace": "team", "uid": uid, "generation": 1}
    return {"metadata": metadata, "spec": {"workflow": "w", **spec}, **({"status": status} if status else {})}


def uid_of(raw: dict[str, Any]) -> RunUid:
    return RunUid(raw["metadata"]["uid"])


class World:
    """An engine and everything around it."""

    def __init__(self, path: Path, *workflows: Workflow) -> None:
        self.path = path
        self.clock = FakeClock()
        self.resources = FakeResources(*workflows)
        self.authorizer = FakeAuthorizer()
        self.sink = FakeSink()
        self.gate: Any = FakeGate()

    @asynccontextmanager
    async def engine(
        self, *, objects: list[dict[str, Any]] | None = None, places: int = 64
    ) -> AsyncIterator[WorkflowEngine]:
        engine = await WorkflowEngine.open(
            self.path,
            resources=self.resources,
            authorizer=self.authorizer,
            sink=self.sink,
            gate=lambda clock, metrics: self.gate,
            clock=self.clock,
            options=EngineOptions(runs=RunOptions(places=places)),
        )
        known = {uid_of(raw): raw for raw in objects or []}
        await engine.recover(known)
        for raw in known.values():
            engine.runs.observe(raw)
        stop = asyncio.Event()
        serving = asyncio.create_task(engine.serve(stop))
        try:
            yield engine
        finally:
            stop.set()
            await asyncio.wait_for(serving, 20)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.001)

    def conditions(self, name: str = "run-0") -> dict[str, tuple[str, str]]:
        statuses = self.sink.of(name)
        return {c["type"]: (c["status"], c["reason"]) for c in statuses[-1]["conditions"]} if statuses else {}

    def succeeded(self, name: str = "run-0") -> tuple[str, str] | None:
        return self.conditions(name).get("Succeeded")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "journal.db", workflow(tool_step("a"), tool_step("b", "send")))


def hanging() -> tuple[asyncio.Event, Callable[[Call], Any]]:
    begun = asyncio.Event()

    async def hang(call: Call) -> dict[str, Any]:
        begun.set()
        await asyncio.Event().wait()
        return {}

    return begun, hang


async def test_a_run_is_accepted_executed_and_reported(world: World) -> None:
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(input={"n": 1})), 20)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
        kinds = [entry.kind for entry in await engine.store.load(uid_of(run_object()))]
    assert state.accepted is not None
    assert state.accepted.account == "clerk" and state.accepted.input == {"n": 1}
    assert kinds[0] is EntryKind.RUN_ACCEPTED and kinds[-1] is EntryKind.RUN_SUCCEEDED
    assert world.gate.dispatched == ["a:read", "b:send"]
    assert len(world.sink.of("run-0")) <= 4
    assert world.sink.of("run-0")[-1]["progress"] == "2/2"


async def test_the_same_object_seen_again_is_not_executed_again(world: World) -> None:
    raw = run_object()
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(raw), 20)
        engine.runs.observe(raw)
        await asyncio.wait_for(engine.submit(run_object(1)), 20)
    async with world.engine(objects=[raw]) as engine:
        await asyncio.wait_for(engine.submit(run_object(2)), 20)
    assert world.gate.dispatched == ["a:read", "b:send"] * 3


async def test_an_end_that_was_not_told_is_told_after_a_restart(world: World) -> None:
    raw = run_object()
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(raw), 20)
    world.sink = FakeSink()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


NOT_READY = READY | {"status": "False", "reason": "UnknownReference", "message": "there is no Tool desk"}
REFUSED: dict[str, tuple[Workflow | None, dict[str, Any], int, str]] = {
    "no such Workflow": (None, {}, GRACE_MS, "WorkflowNotFound"),
    "the Workflow is wrong": (workflow(tool_step("a"), status={"conditions": [NOT_READY]}), {}, 0, "InvalidWorkflow"),
    "the input does not fit": (
        workflow(tool_step("a"), input={"schema": {"type": "object", "required": ["n"]}}),
        {},
        0,
        "InvalidInput",
    ),
    "the input is too large": (workflow(tool_step("a")), {"input": {"n": "x" * 300_000}}, 0, "InvalidInput"),
    "the input cannot be kept": (workflow(tool_step("a")), {"input": {"n": 2**65}}, 0, "InvalidInput"),
    "cancelled before it began": (workflow(tool_step("a")), {"desiredState": "Cancelled"}, 0, "Cancelled"),
}


@pytest.mark.parametrize(("flow", "spec", "wait_ms", "reason"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_cannot_begin_ends_with_its_reason(
    world: World, flow: Workflow | None, spec: dict[str, Any], wait_ms: int, reason: str
) -> None:
    world.resources.workflows = {"w": flow} if flow is not None else {}
    async with world.engine() as engine:
        ended = engine.submit(run_object(**spec))
        if wait_ms:
            await world.until(lambda: world.succeeded() == ("Unknown", "Queued"))
            assert not ended.done()
            world.clock.now += wait_ms
            engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
        await world.until(lambda: world.succeeded() == ("False", reason))
    assert state.terminal is not None and state.terminal.reason == reason
    assert world.gate.dispatched == []


@pytest.mark.parametrize(
    "status",
    [{}, {"conditions": [READY | {"observedGeneration": 0}]}, {"conditions": [READY | {"status": "Unknown"}]}],
    ids=["not looked at", "looked at before the last change", "unknown"],
)
async def test_a_run_waits_until_its_workflow_is_ready(world: World, status: dict[str, Any]) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), status=status)
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "WorkflowNotReady"))
        world.resources.workflows["w"] = workflow(tool_step("a"))
        engine.workflow_changed(["w"])
        await asyncio.wait_for(ended, 20)
    assert world.gate.dispatched == ["a:read"]


async def test_a_workflow_without_its_grants_ends_denied_after_a_while(world: World) -> None:
    world.authorizer.verdict = Authorization("Denied")
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "NotAuthorized"))
        world.clock.now += GRACE_MS
        engine.runs.wake()
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Denied"
    assert "kubectl auth can-i invoke toolfunctions.fairlead.dev/desk.send" in state.terminal.message
    assert world.gate.dispatched == []


async def test_an_authorizer_without_an_answer_neither_denies_nor_allows(world: World) -> None:
    world.authorizer.verdict = Authorization("Unavailable", message="no answer")
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "NotAuthorized"))
        world.clock.now += 10 * GRACE_MS
        engine.runs.wake()
        world.authorizer.verdict = Authorization("Allowed")
        engine.workflow_changed(["w"])
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.kind is EntryKind.RUN_SUCCEEDED


@pytest.mark.requirement("G6")
async def test_an_accepted_run_keeps_the_revision_that_it_began_with(world: World) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await WorkflowEngine.open(
        world.path,
        resources=world.resources,
        authorizer=world.authorizer,
        sink=world.sink,
        gate=lambda clock, metrics: world.gate,
        clock=world.clock,
    )
    async with killed(engine, begun, raw):
        pass
    world.resources.workflows["w"] = workflow(tool_step("other"))
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read", "b:send"]


@asynccontextmanager
async def killed(engine: WorkflowEngine, begun: asyncio.Event, *raws: dict[str, Any]) -> AsyncIterator[None]:
    """Serve until a call has begun, then vanish without a word, as far as one process can play that."""
    await engine.recover({})
    parts = asyncio.create_task(engine._parts())
    for raw in raws:
        engine.submit(raw)
    await asyncio.wait_for(begun.wait(), 20)
    for run in engine.runs.roster.all():
        if run.log is not None:
            run.log.seal()
    parts.cancel()
    await asyncio.gather(parts, return_exceptions=True)
    await engine.store.close()
    yield


@pytest.mark.requirement("G3")
async def test_an_effect_that_was_under_way_is_unknown_after_a_crash(world: World) -> None:
    world.resources.workflows["w"] = workflow(tool_step("b", "send", retry={"limit": 3}))
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await open_engine(world)
    async with killed(engine, begun, raw):
        pass
    world.gate = FakeGate()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("False", "OutcomeUnknown"))
    assert world.gate.dispatched == []


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("function", ["read", "put"])
async def test_a_read_or_keyed_call_is_made_again_after_a_crash(world: World, function: str) -> None:
    world.resources.workflows["w"] = workflow(tool_step("b", function))
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    engine = await open_engine(world)
    async with killed(engine, begun, raw):
        pass
    world.gate = FakeGate()
    async with world.engine(objects=[raw]):
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == [f"b:{function}"]


async def open_engine(world: World) -> WorkflowEngine:
    return await WorkflowEngine.open(
        world.path,
        resources=world.resources,
        authorizer=world.authorizer,
        sink=world.sink,
        gate=lambda clock, metrics: world.gate,
        clock=world.clock,
    )


@pytest.mark.requirement("G7")
async def test_a_parked_run_survives_a_restart_and_wakes_in_time(world: World) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    world.resources.workflows["w"] = workflow(tool_step("a", retry={"limit": 1, "backoffSeconds": 60}))
    world.gate = FakeGate(unavailable)
    raw = run_object()
    async with world.engine() as engine:
        engine.submit(raw)
        await world.until(lambda: world.succeeded() == ("Unknown", "BackingOff") or len(world.gate.dispatched) == 1)
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        (parked,) = engine.runs.roster.all()
        assert parked.task is None and parked.log is None
    world.gate = FakeGate()
    async with world.engine(objects=[raw]) as engine:
        assert engine.runs.roster.status("w")["waiting"] == 1
        assert world.gate.dispatched == []
        world.clock.now += 120_000
        engine.runs.wake()
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.gate.dispatched == ["a:read"]


@pytest.mark.parametrize("how", ["asked", "deleted"])
async def test_a_run_is_cancelled_when_asked_or_deleted(world: World, how: str) -> None:
    begun, hang = hanging()
    world.gate = FakeGate(hang)
    raw = run_object()
    async with world.engine() as engine:
        ended = engine.submit(raw)
        await begun.wait()
        if how == "asked":
            engine.runs.observe(run_object(desiredState="Cancelled"))
        else:
            engine.runs.gone(uid_of(raw))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Cancelled"


async def test_a_parked_run_is_cancelled_at_once(world: World) -> None:
    async def unavailable(call: Call) -> dict[str, Any]:
        return {"error": {"class": "Unavailable", "reason": "Unavailable", "message": "no answer"}}

    world.resources.workflows["w"] = workflow(tool_step("a", retry={"limit": 1, "backoffSeconds": 600}))
    world.gate = FakeGate(unavailable)
    async with world.engine() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        engine.runs.observe(run_object(desiredState="Cancelled"))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None and state.terminal.reason == "Cancelled"


async def test_places_are_given_in_turn_to_workflows(world: World) -> None:
    gates: dict[str, asyncio.Event] = {}
    order: list[str] = []

    async def answer(call: Call) -> dict[str, Any]:
        return {"result": {}}

    class Ordered(FakeGate):
        async def call(self, log: RunLog, call: Call) -> None:
            order.append(log.name)
            if log.name == "run-0":
                await gates.setdefault("run-0", asyncio.Event()).wait()
            await super().call(log, call)

    world.resources.workflows = {
        "w": workflow(tool_step("a")),
        "v": workflow(tool_step("a"), name="v"),
    }
    gates["run-0"] = asyncio.Event()
    world.gate = Ordered(answer)
    async with world.engine(places=1) as engine:
        first = engine.submit(run_object(0))
        await world.until(lambda: order == ["run-0"])
        later = [engine.submit(run_object(number)) for number in (1, 2, 3)]
        later.append(engine.submit(run_object(4, workflow="v")))
        await world.until(
            lambda: engine.runs.roster.status("v")["queued"] == 1 and world.succeeded("run-4") is not None
        )
        assert world.succeeded("run-3") == ("Unknown", "Queued")
        gates["run-0"].set()
        await asyncio.wait_for(asyncio.gather(first, *later), 20)
    assert order == ["run-0", "run-1", "run-4", "run-2", "run-3"]


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
    (condition,) = status["conditions"]
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
