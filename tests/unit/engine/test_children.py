"""Parents and children through the whole engine: who may, who waits, who ends whom."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.engine.childworld import INVOKE, ChildWorld, child_step, entries, hang_once, held, run_object, uid_of
from tests.unit.engine.fakes import READY, tool_step

from fairlead.api.policy import Policy
from fairlead.engine.store import Store
from fairlead.errors import KubeError, Unreachable
from fairlead.flow.calls import Call, CallError, CallKind, Outcome
from fairlead.flow.journal import Entry, EntryKind, RunUid
from fairlead.flow.journal import Path as RunPath
from fairlead.flow.state import RunState


@pytest.fixture
def world(tmp_path: Path) -> ChildWorld:
    return ChildWorld(tmp_path / "journal.db")


async def end_of(world: ChildWorld, **spec: Any) -> RunState:
    async with world.serving() as engine:
        return await asyncio.wait_for(engine.submit(run_object(**spec)), 20)


async def intent_of(world: ChildWorld) -> Entry:
    """Return the intent that the store has after a crash."""
    store = await Store.open(world.path, clock=world.clock)
    try:
        (intent,) = [e for e in await store.load(uid_of(run_object())) if e.kind is EntryKind.CALL_INTENT]
        return intent
    finally:
        await store.close()


def reason(state: RunState) -> str:
    assert state.terminal is not None
    return state.terminal.reason


async def test_a_child_runs_as_its_own_account_for_whoever_asked_for_the_parent(world: ChildWorld) -> None:
    async with world.serving() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(requestedBy="alice")), 20)
        (accepted,) = await entries(engine, world.child, EntryKind.RUN_ACCEPTED)
    assert state.terminal is not None
    assert state.terminal.output == {"text": "send"}
    assert (accepted.data["account"], accepted.data["requestedBy"]) == ("aide", "alice")
    assert accepted.data["parent"]["uid"] == uid_of(run_object())
    assert ("clerk", (INVOKE,)) in world.grants.asked
    assert world.servers.functions() == ["a:send"]


@pytest.mark.requirement("G7")
async def test_a_parent_waits_as_a_row_and_says_for_whom(world: ChildWorld) -> None:
    begun, go_on, answer = held()
    world.servers.answer = answer
    async with world.serving() as engine:
        ended = engine.submit(run_object())
        await begun.wait()
        await world.until(lambda: world.succeeded() == ("Unknown", "WaitingForChild"))
        parent = engine.runs.roster.get(uid_of(run_object()))
        assert parent is not None
        assert (parent.task, parent.log) == (None, None)
        waiting = world.sink.of("run-0")[-1]
        go_on.set()
        assert reason(await asyncio.wait_for(ended, 20)) == "Completed"
    name = world.child["metadata"]["name"]
    assert waiting["waitingFor"] == f"run {name}"
    assert (waiting["steps"][0]["phase"], waiting["steps"][0]["message"]) == ("Waiting", f"run {name}")


@pytest.mark.requirement("A59")
async def test_a_step_starts_no_workflow_that_its_account_may_not_invoke(world: ChildWorld) -> None:
    async def revoke(call: Call) -> Outcome:
        world.grants.denied.add(INVOKE)
        return Outcome(result={})

    world.servers.answer = revoke
    world.declare(tool_step("first"), child_step("ask"))
    state = await end_of(world)
    assert reason(state) == "Denied"
    assert state.terminal is not None
    assert "kubectl auth can-i invoke workflows.fairlead.dev/c" in state.terminal.message
    assert (world.kube.objects, state.denials) == ({}, 1)


@pytest.mark.requirement("A59")
async def test_an_agent_starts_no_workflow_that_its_account_may_not_invoke(world: ChildWorld) -> None:
    told: list[str] = []

    async def think(call: Call) -> Outcome:
        world.grants.denied.add(INVOKE)
        told.extend(message["content"] for message in call.request["messages"] if message["role"] == "tool")
        calls = [] if told else [{"id": "1", "name": "c", "arguments": "{}"}]
        return Outcome(result={"content": "done" if told else "", "toolCalls": calls})

    world.servers.answer = think
    world.declare({"name": "a", "agent": {"model": "m", "prompt": "x", "tools": [{"workflow": "c"}]}})
    state = await end_of(world)
    assert (reason(state), told, state.denials) == ("Completed", ["not permitted"], 1)
    assert world.kube.objects == {}


async def test_a_workflow_that_names_a_child_is_authorized_only_with_invoke_on_it(world: ChildWorld) -> None:
    world.grants.denied.add(INVOKE)
    async with world.serving() as engine:
        engine.submit(run_object())
        await world.until(lambda: world.conditions().get("Accepted") == ("Unknown", "NotAuthorized"))
        await world.until(lambda: engine.authorizations.of("w") is not None)
        verdict = engine.authorizations.of("w")
    assert verdict is not None
    assert "invoke on workflows/c" in verdict.message


async def test_an_agent_gets_the_output_of_the_child_that_it_asked_for(world: ChildWorld) -> None:
    told: list[str] = []

    async def answer(call: Call) -> Outcome:
        if call.kind is CallKind.TOOL:
            return Outcome(result={"facts": 3})
        told.extend(message["content"] for message in call.request["messages"] if message["role"] == "tool")
        calls = [] if told else [{"id": "1", "name": "c", "arguments": '{"topic": "tea"}'}]
        return Outcome(result={"content": "done", "toolCalls": calls}, input_tokens=5)

    world.servers.answer = answer
    world.declare({"name": "a", "agent": {"model": "m", "prompt": "x", "tools": [{"workflow": "c"}]}})
    state = await end_of(world)
    assert (reason(state), told) == ("Completed", ['{"facts":3}'])
    assert world.child["spec"]["input"] == {"topic": "tea"}
    assert json.dumps(state.terminal.output if state.terminal else None) == '{"text": "done"}'


async def test_a_run_that_is_not_the_child_keeps_its_name_and_is_not_believed(world: ChildWorld) -> None:
    begun, hang = hang_once()
    world.kube.on_create = hang
    await world.crash(begun, run_object())
    name = (await intent_of(world)).data["child"]["name"]
    somebodys = {
        "metadata": {"name": name, "namespace": "team", "uid": "x", "generation": 1},
        "spec": {"workflow": "c"},
    }
    world.kube.objects[name] = somebodys
    world.kube.on_create = None
    async with world.engine(objects=[run_object()]):
        await world.until(lambda: world.succeeded() == ("False", "ChildNameConflict"))
    assert world.servers.asked == []
    assert somebodys["spec"] == {"workflow": "c"}


@pytest.mark.parametrize("how", ["asked", "deleted", "overdue", "step overdue"])
async def test_a_child_ends_with_its_parent(world: ChildWorld, how: str) -> None:
    begun, hang = hang_once()
    world.servers.answer = hang
    world.declare(child_step("ask", timeoutSeconds=60), limits={"timeoutSeconds": 600})
    world.declare(tool_step("a", "read"), name="c", limits={"timeoutSeconds": 86400})
    raw = run_object()
    async with world.serving() as engine:
        ended, child = engine.submit(raw), None
        await begun.wait()
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        child = engine.runs.end_of(RunUid(world.child["metadata"]["uid"]))
        if how == "asked":
            engine.runs.observe(run_object(desiredState="Cancelled"))
        elif how == "deleted":
            engine.runs.gone(uid_of(raw))
        else:
            world.clock.now += 60_000 if how == "step overdue" else 600_000
            engine.runs.wake()
        state, its = await asyncio.wait_for(asyncio.gather(ended, child), 20)
    assert reason(state) == {"overdue": "Timeout", "step overdue": "StepFailed"}.get(how, "Cancelled")
    assert reason(its) in ("Cancelled", "Timeout")


async def test_a_child_of_finally_is_waited_for_while_one_of_the_steps_is_not(world: ChildWorld) -> None:
    begun, hang = hang_once()
    world.servers.answer = hang
    world.declare(
        child_step("ask"),
        **{"finally": "clean", "blocks": [{"name": "clean", "steps": [child_step("tidy", "tidier")]}]},
    )
    world.declare(tool_step("a", "read"), name="c")
    world.declare({"name": "t", "transform": {"value": "tidy"}}, name="tidier")
    async with world.serving() as engine:
        ended = engine.submit(run_object())
        await begun.wait()
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        engine.runs.observe(run_object(desiredState="Cancelled"))
        state = await asyncio.wait_for(ended, 20)
    assert reason(state) == "Cancelled"
    assert state.steps[RunPath("!/tidy")].output == "tidy"
    assert state.steps[RunPath("ask")].phase == "Failed"


async def test_a_child_never_outlives_the_limits_of_its_parent(world: ChildWorld) -> None:
    world.declare(tool_step("before"), child_step("ask"), limits={"toolCalls": 3})
    world.declare(tool_step("a"), tool_step("b"), name="c")
    state = await end_of(world)
    assert reason(state) == "BudgetExceeded"
    assert world.servers.functions() == ["before:read", "a:read"]


@pytest.mark.parametrize("mode", ["Enforce", "Audit"])
async def test_a_child_never_outlives_the_budget_that_a_policy_gives_its_parent(world: ChildWorld, mode: str) -> None:
    world.declare(tool_step("before"), child_step("ask"))
    metadata = world.resources.workflows["w"].metadata.model_copy(update={"labels": {"tier": "prod"}})
    world.resources.workflows["w"] = world.resources.workflows["w"].model_copy(update={"metadata": metadata})
    world.declare(tool_step("a"), tool_step("b"), name="c")
    budgeted = {"mode": mode, "rules": {"budgets": {"run": {"toolCalls": 3}}}}
    bound = budgeted | {"appliesTo": {"workflows": {"matchLabels": {"tier": "prod"}}}}
    world.resources.policies = {"p": Policy.model_validate({"metadata": {"name": "p"}, "spec": bound})}
    state = await end_of(world)
    over, made = ("BudgetExceeded", ["before:read", "a:read"]), world.servers.functions()
    assert (reason(state), made) == (over if mode == "Enforce" else ("Completed", [*over[1], "b:read"]))


async def test_what_children_used_counts_in_the_status_of_their_parent(world: ChildWorld) -> None:
    world.declare(tool_step("a"), tool_step("b"), name="c")
    async with world.serving() as engine:
        await asyncio.wait_for(engine.submit(run_object()), 20)
        await world.until(lambda: world.succeeded() == ("True", "Completed"))
    assert world.sink.of("run-0")[-1]["usage"]["toolCalls"] == 1 + 2


@pytest.mark.requirement("A42")
async def test_recursion_ends_at_the_depth_of_the_first_run(world: ChildWorld) -> None:
    world.declare(child_step("again", "w"), limits={"depth": 2})
    state = await end_of(world)
    assert reason(state) == "BudgetExceeded"
    assert state.terminal is not None
    assert "limits.depth: no further level of child runs is left" in state.terminal.message
    assert len(world.kube.made) == 2


async def test_a_child_that_fails_fails_the_step_with_its_reason_and_name(world: ChildWorld) -> None:
    async def fail(call: Call) -> Outcome:
        return Outcome(error=CallError("ToolError", "Broken", "it is broken"))

    world.servers.answer = fail
    async with world.serving() as engine:
        state = await asyncio.wait_for(engine.submit(run_object()), 20)
    assert state.terminal is not None
    assert state.terminal.error is not None
    assert (reason(state), state.terminal.error.error_class) == ("StepFailed", "ToolError")
    assert f"run {world.child['metadata']['name']}: a: ToolError/Broken" in state.terminal.message


async def test_a_child_that_cannot_begin_fails_the_step(world: ChildWorld) -> None:
    schema = {"type": "object", "required": ["n"]}
    world.declare(
        tool_step("a"), name="c", status={"conditions": [READY | {"status": "False", "reason": "InvalidSpec"}]}
    )
    state = await end_of(world)
    assert state.terminal is not None
    assert state.terminal.error is not None
    assert (state.terminal.error.error_class, state.terminal.error.reason) == ("Invalid", "InvalidWorkflow")
    world.declare(tool_step("a"), name="c", input={"schema": schema})
    async with world.serving() as engine:
        state = await asyncio.wait_for(engine.submit(run_object(1)), 20)
    assert reason(state) == "Denied"
    assert "the input does not fit Workflow c" in (state.terminal.message if state.terminal else "")


@pytest.mark.parametrize("how", ["cancelled", "deleted", "deleted before it began"])
async def test_a_parent_learns_of_a_child_that_somebody_ended(world: ChildWorld, how: str) -> None:
    _, hang = hang_once()
    world.servers.answer = hang
    not_yet = {"status": {"conditions": []}} if how.endswith("began") else {}
    world.declare(tool_step("a", "read"), name="c", **not_yet)
    async with world.serving() as engine:
        ended = engine.submit(run_object())
        await world.until(lambda: engine.runs.roster.status("w")["waiting"] == 1)
        await world.until(lambda: engine.runs.roster.status("c")["queued" if not_yet else "active"] == 1)
        raw = world.child
        if how == "cancelled":
            engine.runs.observe(raw | {"spec": raw["spec"] | {"desiredState": "Cancelled"}})
        else:
            engine.runs.gone(uid_of(raw))
        state = await asyncio.wait_for(ended, 20)
    assert state.terminal is not None
    assert state.terminal.error is not None
    assert state.terminal.error.error_class == "Cancelled"


async def test_a_run_that_claims_a_parent_that_does_not_wait_for_it_never_begins(world: ChildWorld) -> None:
    begun, go_on, answer = held()
    world.servers.answer = answer
    async with world.serving() as engine:
        ended = engine.submit(run_object())
        await begun.wait()
        forged = run_object(7, workflow="c", parent=world.child["spec"]["parent"])
        state = await asyncio.wait_for(engine.submit(forged), 20)
        assert (reason(state), state.accepted) == ("Cancelled", None)
        orphan = run_object(8, workflow="c", parent=world.child["spec"]["parent"] | {"uid": "nobody"})
        assert reason(await asyncio.wait_for(engine.submit(orphan), 20)) == "Cancelled"
        go_on.set()
        assert reason(await asyncio.wait_for(ended, 20)) == "Completed"
    assert len(world.servers.asked) == 1


@pytest.mark.requirement("F15")
async def test_an_api_server_that_is_away_is_asked_again(world: ChildWorld) -> None:
    errors = [Unreachable(0, "no answer"), Unreachable(503, "busy")]

    async def away(name: str) -> None:
        if errors:
            raise errors.pop(0)

    world.kube.on_create = away
    assert reason(await end_of(world)) == "Completed"
    assert len(world.kube.made) == 1


@pytest.mark.parametrize(("status", "error_class"), [(403, "Denied"), (422, "Invalid")])
async def test_a_child_that_is_refused_fails_the_step_in_the_words_of_the_api_server(
    world: ChildWorld, status: int, error_class: str
) -> None:
    async def refuse(name: str) -> None:
        raise KubeError(status, "admission says no")

    world.kube.on_create = refuse
    state = await end_of(world)
    assert state.terminal is not None
    assert state.terminal.error is not None
    assert (state.terminal.error.error_class, state.terminal.error.reason) == (error_class, "ChildRefused")
    assert "admission says no" in state.terminal.message
