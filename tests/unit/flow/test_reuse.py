"""retryFrom: a run that goes on from an ended one does again what failed or is not the same any more, and no more."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.generated import plans, world
from tests.unit.flow.world import Driver, Journal, Stopped, World, accepted, chat, error, model, plan_of, step, tool

from fairlead.api.canonical import digest
from fairlead.api.reasons import DecidedReason
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.journal import EntryKind
from fairlead.flow.labels import WORST
from fairlead.flow.plan import Plan
from fairlead.flow.reuse import REUSED, going_on, past_of
from fairlead.flow.steps import kinds

Step = dict[str, Any]

examples = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def call(name: str, argument: Any = 1, **more: Any) -> Step:
    return {"name": name, "tool": {"tool": "t", "function": name, "arguments": {"x": argument}}, **more}


def answering(*broken: str, **answers: Any) -> World:
    """Return a world in which these paths fail, and functions answer with their name unless told otherwise."""

    def answer(asked: Call) -> Any:
        if asked.id.path in broken or asked.function in broken:
            return error("ToolError")
        return answers.get(asked.function, asked.function)

    return World(answer=answer)


def ran(plan: Plan, a_world: World, given: Any = None) -> Driver:
    driver = Driver(plan, a_world, accepted(plan, given))
    driver.run()
    return driver


def retried(plan: Plan, before: Driver, a_world: World, given: Any = None, *, step: str | None = None) -> Driver:
    past = past_of("first", before.journal.entries, before.plan)
    return ran(going_on(plan, past, step), a_world, given)


def done(driver: Driver) -> list[str]:
    """Return the paths of the calls that were made, in their order."""
    return [asked.id.path for asked in driver.world.performed]


def reason(driver: Driver) -> str:
    return driver.state.terminal.reason if driver.state.terminal else "open"


def reused(driver: Driver) -> list[str]:
    ends = driver.journal.of(EntryKind.STEP_SUCCEEDED)
    return [entry.path for entry in ends if entry.data.get("reusedFrom") == "first"]


def test_what_had_succeeded_is_taken_over_and_what_had_failed_is_done() -> None:
    plan = plan_of([call("a"), call("b"), call("c", "$( steps.a.output )")], output="$( steps.c.output )")
    before = ran(plan, answering("b"))
    assert (reason(before), done(before)) == ("StepFailed", ["a", "b"])
    again = retried(plan, before, answering(a="not asked"))
    assert (reason(again), done(again), reused(again)) == ("Completed", ["b", "c"], ["a"])
    assert again.world.performed[-1].request["arguments"] == {"x": "a"}
    assert step(again.state, "a").reused_from == "first"
    assert again.state.usage.tool_calls == 2


def test_a_step_with_another_definition_is_done_and_so_is_what_its_output_changes() -> None:
    steps = [call("a"), call("b", "$( steps.a.output )"), call("c", 7)]
    before = ran(plan_of(steps), answering())
    changed = [{**steps[0], "tool": {"tool": "t", "function": "other", "arguments": {"x": 1}}}, *steps[1:]]
    again = retried(plan_of(changed), before, answering())
    assert (done(again), reused(again)) == (["a", "b"], ["c"])


def test_how_a_step_is_retried_is_no_part_of_what_it_does() -> None:
    before = ran(plan_of([call("a")]), answering())
    plan = plan_of([call("a", retry={"limit": 5}, timeoutSeconds=9, when="true")])
    assert done(retried(plan, before, answering())) == []


def test_another_input_reaches_the_steps_that_read_it() -> None:
    plan = plan_of([call("a", "$( input.x )"), call("b", "$( input.y )")])
    before = ran(plan, answering(), {"x": 1, "y": 1})
    again = retried(plan, before, answering(), {"x": 1, "y": 2})
    assert (done(again), reused(again)) == (["b"], ["a"])


def test_a_number_is_not_the_same_as_a_truth() -> None:
    plan = plan_of([call("a", "$( input.x )")])
    before = ran(plan, answering(), {"x": 1})
    assert done(retried(plan, before, answering(), {"x": True})) == ["a"]


@pytest.mark.parametrize(
    ("order", "steps", "expected"),
    [
        ("Sequence", [call("a"), call("b"), call("c")], ["b", "c"]),
        ("Graph", [call("a"), call("b"), call("c", needs=["a"]), call("d", needs=["b"])], ["b", "d"]),
        ("Graph", [call("d", needs=["c"]), call("c", needs=["b"]), call("b"), call("a")], ["b", "c", "d"]),
    ],
)
def test_a_named_step_and_all_that_come_after_it_are_done_again(
    order: str, steps: list[Step], expected: list[str]
) -> None:
    plan = plan_of(steps, order=order)
    again = retried(plan, ran(plan, answering()), answering(), step="b")
    assert sorted(done(again)) == expected


def test_of_a_loop_only_the_items_that_had_failed_are_done() -> None:
    steps = [call("a", "$( item )", forEach={"items": "$( input )", "maxParallel": 2})]
    before = ran(plan_of(steps), answering("a[1]"), [1, 2, 3])
    again = retried(plan_of(steps), before, answering(), [1, 2, 3])
    assert (done(again), step(again.state, "a").output) == (["a[1]"], ["a", "a", "a"])
    shifted = retried(plan_of(steps), again, answering(), [2, 2, 3])
    assert done(shifted) == ["a[0]"]


def test_iterations_and_branches_are_gone_through_again_and_what_they_did_is_taken_over() -> None:
    blocks = [{"name": "one", "steps": [call("x", "$( 1 )")]}, {"name": "two", "steps": [call("y"), call("z")]}]
    steps = [
        {"name": "r", "block": "one", "repeat": {"until": "iteration == 2", "maxIterations": 3}},
        {"name": "p", "parallel": {"blocks": ["one", "two"]}},
    ]
    plan = plan_of(steps, blocks=blocks)
    before = ran(plan, answering("z"))
    again = retried(plan, before, answering())
    assert (reason(again), done(again)) == ("Completed", ["p/two/z"])


def test_a_route_goes_the_way_it_went_without_asking() -> None:
    route = {"value": "x", "choices": [{"name": "l", "block": "left"}, {"name": "r", "block": "right"}], "model": "m"}
    blocks = [{"name": "left", "steps": [call("x"), call("y")]}, {"name": "right", "steps": [call("z")]}]
    plan = plan_of([{"name": "way", "route": route}], blocks=blocks)
    words = iter(["l", "r"])

    def answer(asked: Call) -> Any:
        return chat(f'{{"choice": "{next(words)}"}}') if asked.target == "m" else error("ToolError")

    before = ran(plan, World(answer=answer, models={"m": model()}))
    assert done(before) == ["way", "way/x"]
    again = retried(plan, before, answering())
    assert (done(again), step(again.state, "way").output) == (["way/x", "way/y"], {"choice": "l", "output": "y"})


def test_a_block_that_a_route_ran_is_that_of_the_way_it_went() -> None:
    choices = [{"name": "l", "when": "true", "block": "left"}]
    route = {"name": "way", "route": {"value": "x", "choices": choices}}
    left = {"name": "left", "steps": [call("x", 1), call("y")]}
    before = ran(plan_of([route], blocks=[left]), answering("y"))
    other = {"name": "left", "steps": [call("x", 2), call("y")]}
    assert done(retried(plan_of([route], blocks=[other]), before, answering())) == ["way/x", "way/y"]


IMAGE = "i@sha256:" + "0" * 64


def container(image: str = IMAGE, **more: Any) -> Step:
    tools = [{"tool": "t", "functions": ["look"]}]
    return {"name": "work", "container": {"image": image, "input": "$( input )", "tools": tools, **more}}


def working(*broken: str) -> World:
    """Return a world in which a container leaves 7, what it calls says something, and these functions fail."""

    def answer(asked: Call) -> Any:
        if asked.kind is CallKind.CONTAINER:
            return {"output": 7, "logs": "hello"}
        return error("ToolError") if asked.function in broken else {"n": 1}

    look = {"name": "look", "effect": "Read", "returns": {"trust": "Untrusted", "sensitivity": "Internal"}}
    return World(answer=answer, tools={"t": tool(look, {"name": "b", "effect": "Irreversible"})})


@pytest.mark.requirement("A37")
def test_a_container_is_taken_over_with_what_it_called_and_the_label_that_it_has_from_there() -> None:
    plan = plan_of([container(), call("b", "$( steps.work.output )")])
    before = Driver(plan, working("b"), accepted(plan, 1, inputLabel="Trusted/Public"))
    before.run()
    assert done(before) == ["work", "work", "b"]
    again = retried(plan, before, working(), 1)
    assert (reason(again), done(again), reused(again)) == ("Completed", ["b"], ["work"])
    assert str(step(again.state, "work").label) == str(step(before.state, "work").label) == "Untrusted/Internal"
    assert str(again.world.performed[0].label) == "Untrusted/Internal"


@pytest.mark.parametrize(
    ("changed", "given"),
    [(container("j@sha256:" + "0" * 64), 1), (container(script={"source": "x"}), 1), (container(), 2)],
    ids=["another image", "another program", "another input"],
)
def test_a_container_that_is_another_one_runs(changed: Step, given: Any) -> None:
    before = ran(plan_of([container(), call("b")]), working("b"), 1)
    assert done(retried(plan_of([changed, call("b")]), before, working(), given)) == ["work", "work", "b"]


def test_an_approval_is_asked_again() -> None:
    terms = {"from": {"users": ["bob"]}, "requester": "Allowed"}
    plan = plan_of([{"name": "ok", "approval": {"message": "?", **terms}}, call("a")])
    agreed = answering("a")
    agreed.people = lambda approval: DecidedReason.APPROVED
    before = ran(plan, agreed)
    assert done(before) == ["a"]
    again = retried(plan, before, answering())
    assert step(again.state, "ok").phase == "Failed" and done(again) == []


def test_handlers_and_finally_run_again() -> None:
    blocks = [{"name": "tell", "steps": [call("told")]}, {"name": "close", "steps": [call("closed")]}]
    steps = [call("a", onError={"block": "tell"}), call("b")]
    plan = plan_of(steps, blocks=blocks, **{"finally": "close"})
    before = ran(plan, answering("a"))
    assert done(before) == ["a", "a!/told", "b", "!/closed"]
    assert done(retried(plan, before, answering("a"))) == ["a", "a!/told", "!/closed"]


def test_an_output_that_a_rule_refuses_now_is_made_again() -> None:
    output = {"schema": {"type": "object"}, "rules": [{"expression": "output.n > input.least", "message": "more"}]}
    plan = plan_of([{"name": "a", "generate": {"model": "m", "prompt": "say", "output": output}}])
    words = World(answer=lambda asked: chat('{"n": 2}'), models={"m": model()})
    before = ran(plan, words, {"least": 1})
    assert done(retried(plan, before, World(answer=words.answer, models=words.models), {"least": 0})) == []
    assert done(retried(plan, before, World(answer=words.answer, models=words.models), {"least": 3})) == ["a"]


def test_a_run_that_goes_on_from_one_that_went_on_finds_all_that_both_did() -> None:
    plan = plan_of([call("a"), call("b"), call("c")])
    first = ran(plan, answering("b"))
    second = retried(plan, first, answering("c"))
    third = retried(plan, second, answering())
    assert (done(second), done(third)) == (["b", "c"], ["c"])


@pytest.mark.requirement("A37")
def test_what_is_taken_over_has_the_worse_label_of_then_and_now() -> None:
    steps = [call("a", "$( input.x )"), {"name": "b", "generate": {"model": "m", "prompt": "$( input.x )"}}]
    plan = plan_of(steps)
    words = World(answer=lambda asked: chat("text"), models={"m": model()})
    labels = ("Trusted/Confidential", "Untrusted/Public")

    def run(of_input: str, past: dict[Any, Any]) -> Driver:
        going = going_on(plan, past, None)
        driver = Driver(going, words, accepted(going, {"x": 1}, inputLabel=of_input))
        driver.run()
        return driver

    before = run(labels[0], {})
    again = run(labels[1], past_of("first", before.journal.entries, plan))
    assert reused(again) == ["a", "b"]
    assert [str(step(again.state, name).label) for name in "ab"] == ["Trusted/Public", "Untrusted/Confidential"]
    of_old = ran(plan, World(answer=words.answer, models=words.models), {"x": 1})  # by a version without labels
    assert {str(past.label) for past in past_of("first", of_old.journal.entries, plan).values()} == {str(WORST)}


@examples
@given(plans(), st.integers(0, 3), st.integers(0, 2**20), st.sampled_from([0, 25, 60]), st.data())
@pytest.mark.requirement("G1")
def test_nothing_that_had_succeeded_with_the_same_inputs_is_done_again_whatever_stops_the_retry(
    plan: Plan, n: int, seed: int, errors_percent: int, data: st.DataObject
) -> None:
    before = ran(plan, world(seed, errors_percent=errors_percent), {"n": n})
    past = past_of("first", before.journal.entries, plan)
    plan = going_on(plan, past, None)
    whole = ran(plan, world(seed, errors_percent=0), {"n": n})
    assert whole.state.terminal is not None
    for asked in whole.world.performed:
        known = past.get(asked.id.path)
        if known is not None and known.succeeded:
            (inputs, *_) = [e for e in whole.journal.of(EntryKind.EVALUATED, asked.id.path) if _inputs(e.data)]
            assert digest(inputs.data["value"]) != known.inputs
    stop_after = data.draw(st.integers(1, len(whole.journal.entries)), label="stopped after")
    resumed = _stopped(plan, world(seed, errors_percent=0), n, stop_after)
    resumed.run()
    if not [entry for entry in resumed.journal.of(EntryKind.CALL_OUTCOME) if _unknown(entry.data)]:
        assert resumed.state == whole.state


def _stopped(plan: Plan, a_world: World, n: int, stop_after: int) -> Driver:
    journal: Journal = accepted(plan, {"n": n})
    with suppress(Stopped):
        Driver(plan, a_world, journal, stop_after=stop_after).run()
    return Driver(plan, a_world, journal)


def _inputs(data: Any) -> bool:
    return bool(data["purpose"] == "Inputs")


def _unknown(data: Any) -> bool:
    return bool(data.get("error", {}).get("reason") == "OutcomeUnknown")


def test_all_kinds_that_reach_outside_are_taken_over_but_what_people_said() -> None:
    assert set(kinds._KINDS) - REUSED == {"approval", "block", "parallel", "transform", "validate"}
