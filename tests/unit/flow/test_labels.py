"""Labels follow what is read, wherever it goes: steps, blocks, loops, routes, errors, agents, children."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.generated import plans, world
from tests.unit.flow.world import (
    Driver,
    World,
    accepted,
    chat,
    drive,
    error,
    model,
    plan_of,
    step,
    tool,
    workflow_named,
)

from fairlead.api.tool import Function
from fairlead.flow.calls import Call
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.labels import TOLD, TRUSTED, WORST, Label, of_input, returned
from fairlead.flow.plan import Plan

Step = dict[str, Any]

WEB = Label(untrusted=True)
CRM = Label(sensitivity=2)
FUNCTIONS = [
    {"name": "fetch", "effect": "Read", "returns": {"trust": "Untrusted", "sensitivity": "Public"}},
    {"name": "customer", "effect": "Read", "returns": {"trust": "Trusted", "sensitivity": "Confidential"}},
    {"name": "clean", "effect": "Read", "returns": {"trust": "Trusted", "sensitivity": "Public"}},
]
FETCH: Step = {"name": "web", "tool": {"tool": "t", "function": "fetch"}}
CUSTOMER: Step = {"name": "crm", "tool": {"tool": "t", "function": "customer"}}
UNTRUSTED = "$( steps.web.output )"


def say(name: str, prompt: str = "hello", **more: Any) -> Step:
    return {"name": name, "generate": {"model": "m", "prompt": prompt}, **more}


def value(name: str, value_: Any, **more: Any) -> Step:
    return {"name": name, "transform": {"value": value_}, **more}


def ran(*steps: Step, answer: Any = None, label: str = "Trusted/Public", **spec: Any) -> Driver:
    def by_default(asked: Call) -> Any:
        return chat("text") if asked.target == "m" else {"text": asked.function}

    a_world = World(answer=answer or by_default, models={"m": model("Tools")}, tools={"t": tool(*FUNCTIONS)})
    plan = plan_of(list(steps), **spec)
    driver = Driver(plan, a_world, accepted(plan, {"text": "x", "items": [1, 2]}, inputLabel=label))
    driver.run()
    return driver


def label(driver: Driver, path: str) -> Label:
    return step(driver.state, path).label


def asked_with(driver: Driver, path: str) -> list[Label]:
    return [call.label for call in driver.world.performed if call.id.path == path]


def test_what_a_workflow_says_itself_is_trusted_and_its_input_is_what_it_declares() -> None:
    steps = (value("own", "x"), value("told", "$( input.text )"))
    driver = ran(*steps, label="Untrusted/Public")
    assert (label(driver, "own"), label(driver, "told")) == (TRUSTED, TOLD)
    assert label(ran(*steps), "told") == TRUSTED


def test_only_what_is_read_counts_and_all_of_it() -> None:
    driver = ran(FETCH, CUSTOMER, value("both", "$( steps.web.output ) $( steps.crm.output )"), value("none", "x"))
    assert (label(driver, "web"), label(driver, "crm")) == (WEB, CRM)
    assert (label(driver, "both"), label(driver, "none")) == (WORST, TRUSTED)


def test_of_a_conditional_both_what_it_asks_and_what_it_takes_count() -> None:
    chosen = "$( steps.web.output.text == 'x' ? 'yes' : 'no' )"
    driver = ran(FETCH, value("own", "x"), value("chosen", chosen), value("phase", "$( steps.web.phase )"))
    assert (label(driver, "chosen"), label(driver, "phase")) == (WEB, WEB)


def test_a_model_answers_with_all_that_it_was_told_a_tool_as_its_contract_says() -> None:
    clean = {"name": "clean", "tool": {"tool": "t", "function": "clean", "arguments": {"x": UNTRUSTED}}}
    driver = ran(FETCH, say("said", UNTRUSTED), clean)
    assert (label(driver, "said"), label(driver, "clean")) == (WEB, TRUSTED)
    assert asked_with(driver, "clean") == [WEB]


TOPIC = {
    "type": "object",
    "properties": {"topic": {"enum": ["a", "fetch"]}, "note": {"type": "integer"}},
    "additionalProperties": False,
}


def check(schema: dict[str, Any], **more: Any) -> Step:
    read = {"topic": "$( steps.web.output.text )"}
    return {"name": "check", "validate": {"value": read, "schema": schema, **more.pop("checks", {})}, **more}


GOES_ON = {"checks": {"onFailure": {"action": "Continue"}}}
ENDORSED: dict[str, tuple[Step, Label]] = {
    "a choice": (check(TOPIC), TRUSTED),
    "a text": (check(TOPIC | {"additionalProperties": True}), WEB),
    "rules alone": (
        {"name": "check", "validate": {"value": UNTRUSTED, "rules": [{"expression": "true", "message": "x"}]}},
        WEB,
    ),
    "what passes although it need not": (check(TOPIC, **GOES_ON), TRUSTED),
    "what does not pass": (check(TOPIC | {"required": ["note"]}, **GOES_ON), WEB),
    "where something untrusted decided that it is looked at": (check(TOPIC, when="steps.web.output.text != ''"), WEB),
}


@pytest.mark.requirement("A36")
@pytest.mark.parametrize(("checked", "expected"), ENDORSED.values(), ids=ENDORSED)
def test_what_passes_a_validate_without_room_for_words_can_be_trusted(checked: Step, expected: Label) -> None:
    driver = ran(FETCH, checked, value("read", "$( steps.check.output )"), value("around", UNTRUSTED))
    assert (label(driver, "check"), label(driver, "read"), label(driver, "around")) == (expected, expected, WEB)


RULE = [{"expression": "steps.web.output.text != 'x' || output == 'never'", "message": "web says x"}]
FAILS = [{"expression": "steps.web.output.text == 'x'", "message": "web says no x"}]


@pytest.mark.requirement("A37")
def test_what_the_rules_of_a_check_read_is_part_of_what_it_says() -> None:
    goes_on = {"onFailure": {"action": "Continue"}}
    holds = {"name": "holds", "validate": {"value": "own", "rules": RULE}}
    breaks = {"name": "breaks", "validate": {"value": "own", "rules": FAILS, **goes_on}}
    fails = {"name": "fails", "validate": {"value": "own", "rules": FAILS}, "onError": {"action": "Continue"}}
    driver = ran(FETCH, holds, breaks, fails, value("own", "x"))
    assert [label(driver, name) for name in ("holds", "breaks", "fails", "own")] == [WEB, WEB, WEB, TRUSTED]


@pytest.mark.requirement("A37")
def test_what_the_rules_of_an_answer_read_leads_to_whatever_is_asked_next() -> None:
    answers = iter(["no", "yes"])
    rules = [{"expression": "output == 'yes' && steps.web.output.text != 'x'", "message": "not what web says"}]
    asks = say("said")
    asks["generate"]["output"] = {"rules": rules, "revisions": 1}
    driver = ran(FETCH, asks, answer=lambda asked: chat(next(answers)) if asked.target == "m" else {"text": "fetch"})
    assert asked_with(driver, "said") == [TRUSTED, WEB]
    assert label(driver, "said") == WEB


def test_what_is_confidential_stays_it_whoever_checks_it() -> None:
    secret = {"name": "check", "validate": {"value": "$( steps.crm.output.text )", "schema": {"enum": ["customer"]}}}
    driver = ran(CUSTOMER, secret, value("read", "$( steps.check.output.value )"))
    assert label(driver, "read") == CRM


def test_whether_a_step_ran_is_part_of_what_it_says() -> None:
    asks = "steps.web.output.text == 'fetch'"
    driver = ran(FETCH, value("runs", "x", when=asks), value("skips", "x", when=f"!({asks})"))
    assert (step(driver.state, "skips").phase, label(driver, "runs"), label(driver, "skips")) == ("Skipped", WEB, WEB)


def test_items_and_iterations_have_the_label_of_what_they_go_over_and_of_each_other() -> None:
    each = value("each", "x", forEach={"items": "$( [steps.web.output.text] )"})
    again = {"name": "again", "block": "body", "repeat": {"until": "iteration == 2", "maxIterations": 3}}
    body = {"name": "body", "steps": [value("seen", "$( previous )"), FETCH]}
    driver = ran(FETCH, each, again, blocks=[body])
    assert (label(driver, "each[0]"), label(driver, "each")) == (WEB, WEB)
    assert (label(driver, "again#1/seen"), label(driver, "again#2/seen"), label(driver, "again")) == (TRUSTED, WEB, WEB)


def test_a_block_says_what_its_output_reads_and_no_more() -> None:
    blocks = [
        {"name": "clean", "steps": [FETCH, value("own", "x")], "output": "$( steps.own.output )"},
        {"name": "last", "steps": [value("own", "x"), FETCH]},
    ]
    steps = ({"name": "a", "block": "clean"}, {"name": "b", "block": "last"})
    driver = ran(*steps, {"name": "p", "parallel": {"blocks": ["clean", "last"]}}, blocks=blocks)
    assert [label(driver, path) for path in ("a", "b", "p", "p/clean")] == [TRUSTED, WEB, WEB, TRUSTED]


def test_a_route_takes_its_reasons_into_the_block_that_it_runs() -> None:
    choices = [{"name": "l", "when": "steps.web.output.text != ''", "block": "left"}, {"name": "r"}]
    left = {"name": "left", "steps": [value("own", "x")]}
    driver = ran(FETCH, {"name": "way", "route": {"value": "x", "choices": choices}}, blocks=[left])
    assert (label(driver, "way/own"), label(driver, "way")) == (WEB, WEB)


def test_an_error_has_the_label_of_what_failed_also_for_who_handles_it() -> None:
    def answer(asked: Call) -> Any:
        return error("ToolError") if asked.function == "fetch" else chat("x")

    handled = FETCH | {"onError": {"block": "tell"}}
    go_on = FETCH | {"name": "web2", "onError": {"action": "Continue"}}
    after = value("after", "$( get(steps.web2.error, 'message') )")
    tell = {"name": "tell", "steps": [say("told", "$( error.message )")]}
    driver = ran(handled, go_on, after, blocks=[tell], answer=answer)
    assert [label(driver, path) for path in ("web!/told", "web", "web2", "after")] == [WEB, WEB, WEB, WEB]


def test_an_agent_asks_with_all_that_it_has_heard_so_far() -> None:
    turns = iter([chat("", ("t__customer", "{}")), chat("", ("t__fetch", "{}")), chat("", ("t__clean", "{}"))])

    def answer(asked: Call) -> Any:
        return next(turns, chat("done")) if asked.target == "m" else {"text": "x"}

    tools = [{"tool": "t", "functions": ["customer", "fetch", "clean"]}]
    driver = ran({"name": "a", "agent": {"model": "m", "prompt": "x", "tools": tools}}, answer=answer)
    heard = {call.function: call.label for call in driver.world.performed if call.function}
    assert heard == {"customer": TRUSTED, "fetch": CRM, "clean": WORST}
    assert label(driver, "a") == WORST


def test_a_signal_is_told_by_somebody() -> None:
    plan = plan_of([{"name": "ask", "wait": {"signal": {"name": "go"}}}])
    journal = accepted(plan, {}, inputLabel="Trusted/Public")
    journal.append(Draft(EntryKind.SIGNAL, data={"index": 0, "name": "go", "data": "x", "by": "mallory"}))
    driver = Driver(plan, World(), journal)
    driver.run()
    assert label(driver, "ask") == TOLD


def test_a_run_says_what_its_output_has_also_after_finally() -> None:
    for more in ({}, {"finally": "close", "blocks": [{"name": "close", "steps": [value("own", "x")]}]}):
        driver = ran(FETCH, CUSTOMER, output="$( steps.crm.output )", **more)
        assert driver.state.terminal is not None and driver.state.terminal.label == CRM


@pytest.mark.requirement("A37")
def test_in_finally_the_error_has_the_label_of_all_that_may_have_failed() -> None:
    def answer(asked: Call) -> Any:
        return error("ToolError") if asked.function == "fetch" else chat("x")

    close = {"name": "close", "steps": [value("told", "$( error.message )"), value("own", "x")]}
    driver = ran(CUSTOMER, FETCH, **{"finally": "close"}, blocks=[close], answer=answer)
    assert [label(driver, path) for path in ("!/told", "!/own")] == [WORST, TRUSTED]


@pytest.mark.requirement("A37")
def test_whether_a_child_runs_is_part_of_what_its_steps_say() -> None:
    close = {"name": "close", "steps": [value("own", "x")]}
    plan = plan_of([value("a", "x"), {"name": "b", "block": "close"}], **{"finally": "close"}, blocks=[close])
    limits = {"timeoutSeconds": 9, "steps": 9, "modelCalls": 9, "toolCalls": 9, "tokens": 9, "depth": 9}
    parent = {"name": "p", "uid": "u", "path": "ask", "attempt": 1, "index": "0.0.0", "limits": limits}
    journal = accepted(plan, {}, inputLabel=str(WORST), parent=parent | {"label": str(WORST)})
    driver = Driver(plan, World(), journal)
    driver.run()
    assert [label(driver, path) for path in ("a", "b/own", "!/own")] == [WORST] * 3


@pytest.mark.parametrize(
    ("contract", "expected"),
    [
        ({}, "Untrusted/Internal"),
        ({"returns": {}}, "Untrusted/Internal"),
        ({"returns": {"trust": "Trusted"}}, "Trusted/Internal"),
        ({"returns": {"sensitivity": "Confidential"}}, "Untrusted/Confidential"),
    ],
)
def test_what_a_contract_does_not_say_is_untrusted_and_internal(contract: Any, expected: str) -> None:
    assert str(returned(Function.model_validate({"name": "f", **contract}))) == expected


@pytest.mark.parametrize("declared", [None, "Trusted", "Untrusted"])
@pytest.mark.parametrize("parent", [None, "Untrusted/Public", "Trusted/Confidential"])
def test_the_input_of_a_child_is_no_better_than_what_led_to_it(declared: str | None, parent: str | None) -> None:
    child = workflow_named("c", **({"input": {"trust": declared}} if declared else {}))
    expected = (TRUSTED if declared == "Trusted" else TOLD).join(Label.parse(parent))
    assert of_input(child, parent) == expected


def test_labels_are_written_as_text_and_read_back() -> None:
    every = [Label(untrusted, sensitivity) for untrusted in (False, True) for sensitivity in range(3)]
    assert [Label.parse(str(one)) for one in every] == every
    for one in every:
        assert one.join(TRUSTED) == one and one.join(WORST) == WORST and one.join(one) == one
        assert all(one.join(other) == other.join(one) for other in every)


def test_a_run_of_a_version_without_labels_has_none() -> None:
    driver = drive(plan_of([value("a", "$( input.x )")]), World(), {"x": 1})
    assert driver.state.accepted is not None and driver.state.accepted.label is None
    assert "label" not in driver.journal.of(EntryKind.STEP_SUCCEEDED)[0].data


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(plans(), st.integers(0, 3), st.integers(0, 2**20), st.sampled_from([0, 0, 25]))
@pytest.mark.requirement("A37")
def test_nothing_that_is_called_trusted_depends_on_what_somebody_outside_says(
    plan: Plan, n: int, seed: int, errors_percent: int
) -> None:
    """Two worlds differ in what the untrusted function answers: every step that is trusted in both says the same."""
    runs = []
    for said in (0, 1):
        journal = accepted(plan, {"n": n}, inputLabel="Trusted/Public")
        driver = Driver(plan, world(seed, errors_percent=errors_percent, untrusted=said), journal)
        driver.run()
        runs.append(driver)
    one, other = (driver.state.steps for driver in runs)
    for path in one.keys() & other.keys():
        if not one[path].label.untrusted and not other[path].label.untrusted:
            assert (one[path].phase, one[path].output) == (other[path].phase, other[path].output), path
