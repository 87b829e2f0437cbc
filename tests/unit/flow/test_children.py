"""Child runs in the core: what is asked for, how a parent waits, what a child's end is to it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.flow.world import (
    START_MS,
    UID,
    Driver,
    Stopped,
    World,
    accepted,
    chat,
    drive,
    error,
    model,
    plan_of,
    run_of,
    run_steps,
    step,
    workflow_named,
)

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.calls import Call, CallError, CallKind, Outcome
from fairlead.flow.children import awaited, bounded, child_name, child_outcome, waits_only_for_children, workflows_of
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.next import CLOSING_GRACE_MS, what_next
from fairlead.flow.state import RunState

CHILD = {"name": "ask", "workflow": {"workflow": "researcher", "input": {"topic": "$( input.topic )"}}}


def waiting(world: World, *steps: dict[str, Any], **more: Any) -> Driver:
    """Return a run whose child has been made and has not ended."""
    plan = plan_of(list(steps or [CHILD]), **more)
    driver = Driver(plan, world, accepted(plan, {"topic": "tea"}))
    while not driver.journal.of(EntryKind.CHILD_STARTED):
        driver.stop_after = len(driver.journal.entries) + 1
        try:
            driver.run()
        except Stopped:
            continue
    driver.stop_after = None
    return driver


def the_call(state: RunState) -> Any:
    (call,) = step(state, "ask").calls.values()
    return call


def test_a_child_gets_its_input_and_its_output_is_the_steps() -> None:
    driver = run_steps([CHILD], lambda call: {"about": call.request["input"]["topic"]}, {"topic": "tea"})
    assert driver.state.terminal is not None
    assert driver.state.terminal.output == {"about": "tea"}
    (intent,) = driver.journal.of(EntryKind.CALL_INTENT)
    spec = intent.data["child"]["spec"]
    assert (spec["workflow"], spec["input"]) == ("researcher", {"topic": "tea"})
    assert (spec["parent"]["uid"], spec["parent"]["path"], spec["parent"]["index"]) == (UID, "ask", "0.0.0")


@pytest.mark.parametrize(
    ("reason", "error_class"),
    [
        ("Denied", "Denied"),
        ("BudgetExceeded", "BudgetExceeded"),
        ("Timeout", "Timeout"),
        ("OutcomeUnknown", "OutcomeUnknown"),
        ("Cancelled", "Cancelled"),
        ("InvalidInput", "Invalid"),
        ("InvalidWorkflow", "Invalid"),
        ("WorkflowNotFound", "Invalid"),
        ("StateLost", "Internal"),
        ("Nondeterminism", "Internal"),
        ("StepFailed", "ToolError"),
        ("LoopDetected", "ToolError"),
    ],
)
def test_a_failed_child_fails_the_step_with_its_reason(reason: str, error_class: str) -> None:
    driver = waiting(World())
    call = the_call(driver.state)
    driver.append(child_outcome(driver.state.steps["ask"].path, 1, call, run_of(Outcome(error=error(reason)))))
    driver.run()
    failed = step(driver.state, "ask").error
    assert failed is not None
    assert (failed.error_class, failed.reason) == (error_class, reason)
    assert failed.message == f"run {call.child.name}: it went wrong"


def test_a_waiting_parent_asks_for_nothing_and_looks_again_at_its_deadline() -> None:
    driver = waiting(World(), CHILD | {"timeoutSeconds": 60})
    following = what_next(driver.plan, driver.state, driver.journal.now_ms, driver.world)
    assert (following.records, following.calls) == ((), ())
    assert following.wake_at_ms == START_MS + 60_000
    assert waits_only_for_children(driver.state)
    assert awaited(driver.state) == {the_call(driver.state).child.name}


def test_the_defaults_of_steps_do_not_hold_for_a_step_that_is_a_run_of_its_own() -> None:
    plan = plan_of([CHILD], defaults={"timeoutSeconds": 5, "retry": {"limit": 3}})
    assert (plan.main.step("ask").timeout_seconds, plan.main.step("ask").retry.limit) == (0, 0)


def test_a_step_that_is_overdue_does_not_wait_for_its_child() -> None:
    driver = waiting(World(), CHILD | {"timeoutSeconds": 60})
    driver.journal.now_ms += 60_000
    (record,) = what_next(driver.plan, driver.state, driver.journal.now_ms, driver.world).records
    assert (record.kind, record.data["error"]["class"]) == (EntryKind.STEP_FAILED, "Timeout")


def test_a_child_is_not_waited_for_when_a_step_beside_it_has_failed() -> None:
    fails = {"name": "fails", "generate": {"model": "m", "prompt": "x"}}
    world = World(answer=lambda call: error("ModelError"), models={"m": model()})
    driver = waiting(world, CHILD, fails, order="Graph")
    driver.world.children.clear()  # so that it does not end
    state = driver.run(until_ms=START_MS + 1000)
    assert state.terminal is not None
    assert state.terminal.reason == "StepFailed"
    assert awaited(state) == frozenset()


def test_a_run_that_comes_to_its_end_gives_its_child_the_time_of_a_call() -> None:
    driver = waiting(World())
    closed_ms = driver.journal.now_ms
    driver.append(Draft(EntryKind.CLOSING, data={"reason": "Cancelled", "message": "by alice"}))
    assert awaited(driver.state) == frozenset()
    following = what_next(driver.plan, driver.state, closed_ms, driver.world)
    assert following.wake_at_ms == closed_ms + CLOSING_GRACE_MS
    (given_up,) = what_next(driver.plan, driver.state, closed_ms + CLOSING_GRACE_MS, driver.world).records
    assert given_up.data["error"]["class"] == "Cancelled"


def test_a_child_gets_what_its_parent_has_left() -> None:
    before = {"name": "before", "generate": {"model": "m", "prompt": "x"}}
    limits = {"timeoutSeconds": 600, "steps": 20, "modelCalls": 9, "toolCalls": 8, "tokens": 1000, "depth": 3}
    world = World(answer=lambda call: chat("fine"), models={"m": model()})
    driver = waiting(world, before, CHILD | {"timeoutSeconds": 60}, limits=limits)
    left = the_call(driver.state).child.spec["parent"]["limits"]
    assert left == {
        "timeoutSeconds": 60,
        "steps": 18,
        "modelCalls": 8,
        "toolCalls": 7,
        "tokens": 986,
        "depth": 2,
    }
    own = plan_of([CHILD], limits={"steps": 5, "depth": 9, "tokens": 5000})
    narrowed = bounded(own, {"limits": left}).limits
    assert (narrowed.steps, narrowed.depth, narrowed.tokens, narrowed.model_calls) == (5, 2, 986, 8)
    assert bounded(own, None) is own


def test_what_a_child_used_counts_as_its_parents() -> None:
    driver = run_steps([CHILD], lambda call: {}, {"topic": "tea"})
    used = driver.state.usage
    assert (used.model_calls, used.tool_calls, used.input_tokens) == (1, 1 + 2, 7)
    assert driver.state.usage.steps == 1 + 3
    assert step(driver.state, "ask").tokens == 14


def test_a_new_attempt_is_a_new_child() -> None:
    def answer(call: Call) -> Any:
        return error("Timeout") if call.id.attempt == 1 else {"text": "ok"}

    driver = run_steps([CHILD | {"retry": {"limit": 1}}], answer, {"topic": "tea"})
    first, second = (entry.data["child"]["name"] for entry in driver.journal.of(EntryKind.CALL_INTENT))
    assert first != second
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"


def test_a_childs_name_is_a_label_that_depends_on_the_call_alone() -> None:
    driver = waiting(World())
    (intent,) = driver.journal.of(EntryKind.CALL_INTENT)
    name = intent.data["child"]["name"]
    assert name.startswith("researcher-")
    call = driver.world.performed[0]
    assert child_name(UID, call) == name
    long = Call(call.id, CallKind.WORKFLOW, "w" * 40)
    assert len(child_name(UID, long)) <= 63


def test_a_child_that_nobody_knows_of_is_asked_for_again() -> None:
    driver = waiting(World())
    name = the_call(driver.state).child.name
    driver.append(Draft(EntryKind.CHILD_LOST, driver.state.steps["ask"].path, 1, {"index": "0.0.0"}))
    (call,) = what_next(driver.plan, driver.state, driver.journal.now_ms, driver.world).calls
    assert child_name(UID, call) == name


# Agents


def run_agent(*turns: Any, answer: Any = None, **more: Any) -> Driver:
    said = iter(turns)

    def reply(call: Call) -> Any:
        return answer if call.kind is CallKind.WORKFLOW else next(said)

    helper = workflow_named("re-searcher", input={"schema": {"type": "object", "required": ["topic"]}})
    world = World(answer=reply, models={"m": model("Tools")}, workflows={"re-searcher": helper}, **more)
    agent = {"model": "m", "prompt": "Do it.", "tools": [{"workflow": "re-searcher"}, {"workflow": "gone"}]}
    return drive(plan_of([{"name": "a", "agent": agent}]), world)


def asks(topic: str = "tea") -> dict[str, Any]:
    return chat("", ("re-searcher", json.dumps({"topic": topic})))


def told(driver: Driver) -> list[str]:
    last = [call for call in driver.world.performed if call.kind is CallKind.CHAT][-1]
    return [message["content"] for message in last.request["messages"] if message["role"] == "tool"]


def test_an_agent_is_offered_a_workflow_with_its_description_and_input_schema() -> None:
    driver = run_agent(chat("done"))
    (offered,) = driver.world.performed[0].request["tools"]
    assert offered == {
        "name": "re-searcher",
        "description": "The re-searcher.",
        "schema": {"type": "object", "required": ["topic"]},
    }


def test_an_agent_is_told_what_came_of_the_child_that_it_asked_for() -> None:
    driver = run_agent(asks(), chat("done"), answer={"facts": 3})
    assert told(driver) == ['{"facts":3}']
    (intent,) = [entry for entry in driver.journal.of(EntryKind.CALL_INTENT) if entry.data["kind"] == "Workflow"]
    assert (intent.data["target"], intent.data["child"]["spec"]["input"]) == ("re-searcher", {"topic": "tea"})


@pytest.mark.parametrize(
    ("answer", "denied", "words"),
    [
        (CallError("Denied", "Denied", "no"), {}, "error: Denied: run re-searcher-"),
        (None, {"re-searcher": "Forbidden"}, "not permitted"),
    ],
)
def test_an_agent_may_go_on_when_its_child_fails_or_is_not_permitted(
    answer: Any, denied: dict[str, str], words: str
) -> None:
    driver = run_agent(asks(), chat("done"), answer=answer, denied=denied)
    assert told(driver)[0].startswith(words)
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "Completed"


def test_input_that_does_not_fit_the_workflow_goes_back_to_the_model() -> None:
    driver = run_agent(chat("", ("re-searcher", "{}")), chat("done"))
    assert told(driver)[0].startswith("The call was not made:")
    assert not driver.world.children


def test_an_agent_that_runs_the_same_child_again_and_again_is_stopped() -> None:
    driver = run_agent(asks(), asks(), asks(), answer={"facts": 3})
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "LoopDetected"
    assert len(driver.world.children) == 2


def test_the_workflows_of_steps_agents_and_blocks_are_known() -> None:
    agent = {"model": "m", "prompt": "x", "tools": [{"workflow": "two"}, {"tool": "t"}]}
    inner = {"name": "c", "workflow": {"workflow": "three"}}
    spec = {
        "steps": [{"name": "a", "workflow": {"workflow": "one"}}, {"name": "b", "agent": agent}],
        "blocks": [{"name": "inner", "steps": [inner]}],
    }
    assert workflows_of(WorkflowSpec.model_validate(spec)) == {"one", "two", "three"}
