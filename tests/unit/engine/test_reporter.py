"""What is told of runs, and what the telling holds on to."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.approvalworld import SIGN, Asked, reason_of, requested, ruled
from tests.unit.engine.fakes import FakeGate, tool_step, workflow
from tests.unit.engine.runworld import World, run_object, uid_of

from fairlead.engine.log import RunLog
from fairlead.engine.projection import LACKS
from fairlead.flow.calls import Call
from fairlead.flow.journal import Path as StepPath
from fairlead.telemetry.export import TraceCounts


class Spans:
    """An exporter that has brought one span more each time it is asked."""

    enabled = True

    def __init__(self) -> None:
        self.exported = 0

    def submit(self, spans: Any) -> None:
        pass

    def counts(self, trace: str) -> TraceCounts:
        self.exported += 1
        return TraceCounts(exported=self.exported)


async def test_what_is_said_of_spans_after_the_end_changes_no_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairlead.engine.reporter.INTERVAL_SECONDS", 0.01)
    world.exporter = Spans()
    write, ends = world.sink.write, list[dict[str, Any]]()

    async def later_each_time(kind: str, name: str, uid: str, status: Any) -> None:
        await write(kind, name, uid, status)
        if kind == "WorkflowRun" and world.conditions()["Finished"][0] == "True":
            ends.append(status)
            world.clock.now += 5_000

    world.sink.write = later_each_time  # type: ignore[method-assign]
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        await world.until(lambda: len(ends) == 2)
    first, second = ({c["type"]: c for c in status["conditions"]} for status in ends)
    assert first.pop("Traced")["message"] != second.pop("Traced")["message"]
    assert first == second


@pytest.mark.requirement("G7")
async def test_of_a_parked_run_no_journal_stays_in_memory(world: World) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), {"name": "nap", "wait": {"seconds": 3600}})
    logs: list[weakref.ref[RunLog]] = []

    class Watching(FakeGate):
        async def call(self, log: RunLog, call: Call) -> None:
            logs.append(weakref.ref(log))
            await super().call(log, call)

    world.gate = Watching()
    async with world.engine() as engine:
        engine.submit(run_object())
        await world.until(lambda: (world.succeeded() or ("", ""))[1] == "Sleeping")
        await world.until(lambda: engine._statuses._subjects[uid_of(run_object())].task is None)
        gc.collect()
        assert [log() for log in logs] == [None]


async def test_a_run_that_is_deleted_before_it_begins_leaves_nothing(world: World) -> None:
    world.resources.workflows["w"] = workflow(tool_step("a"), status={})
    async with world.engine() as engine:
        engine.runs.observe(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "WorkflowNotReady"))
        engine.runs.gone(uid_of(run_object()))
        assert engine._statuses._subjects == {} and engine.runs.roster.all() == []


@pytest.mark.requirement("A34", "G4")
@pytest.mark.parametrize("part", ["_output", "_row", "_progress"])
async def test_that_a_run_has_ended_is_said_whatever_else_cannot_be(
    world: World, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(*_: Any) -> Any:
        raise RecursionError

    monkeypatch.setattr(f"fairlead.engine.projection.{part}", broken)
    async with world.engine() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        await world.until(lambda: world.conditions().get("Finished") == ("True", "Completed"))
    assert world.conditions()["Accepted"][0] == "True" and world.succeeded() == ("True", "Completed")
    last = world.sink.of("run-0")[-1]
    (finished,) = (one for one in last["conditions"] if one["type"] == "Finished")
    assert finished["message"] == LACKS and "output" not in last and last["completionTime"]


@pytest.mark.requirement("F09")
async def test_why_a_step_cannot_begin_is_told_while_it_cannot(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.engine.status.INTERVAL_SECONDS", 0.01)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(call: Call) -> dict[str, Any]:
        begun.set()
        await go_on.wait()
        return {"result": {}}

    world.gate = FakeGate(answer)
    raw, why = run_object(), "ImagePullBackOff: " + "so " * 40

    def told() -> tuple[str, str]:
        status = world.sink.of("run-0")[-1]
        row: dict[str, Any] = next((row for row in status.get("steps", []) if row["path"] == "a"), {})
        message = next(c["message"] for c in status["conditions"] if c["type"] == "Succeeded")
        return row.get("message", ""), message

    async with world.engine() as engine:
        engine.submit(raw)
        await asyncio.wait_for(begun.wait(), 20)
        run = engine.runs.roster.get(uid_of(raw))
        assert run is not None and run.log is not None
        run.log.tell(StepPath("a"), why)
        await world.until(lambda: told() == (why[:64], f"step a: {why}"))
        run.log.tell(StepPath("a"), "")
        await world.until(lambda: told() == ("", "steps are running"))
        go_on.set()
        await world.until(lambda: world.succeeded() == ("True", "Completed"))


async def test_of_an_agent_that_goes_on_the_status_names_the_rule_that_denied_its_call(tmp_path: Path) -> None:
    world = Asked(tmp_path / "journal.db", SIGN)
    world.asks_for("{}")
    world.resources.policies = ruled({"name": "noLetters", "when": "call.function == 'send'", "message": "none"})
    async with world.engine() as engine:
        state = await asyncio.wait_for(engine.submit(requested()), 20)
    assert reason_of(state) == "Completed"
    (row,) = world.sink.of("run-0")[-1]["steps"]
    assert (row["phase"], row["denial"]["policy"], row["denial"]["rule"]) == ("Succeeded", "p", "noLetters")
