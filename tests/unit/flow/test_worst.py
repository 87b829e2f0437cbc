"""The worst labels that data can have, before anything runs: what leaks is told, and no run ever finds worse."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.flow.generated import specs, world
from tests.unit.flow.test_labels import CRM, CUSTOMER, FETCH, FUNCTIONS, WEB, say, value
from tests.unit.flow.world import Driver, accepted, plan_of, tool

from fairlead.api.workflow import Workflow
from fairlead.flow.labels import TRUSTED, WORST, Label
from fairlead.flow.worst import MAIN, MOST_CHILDREN, worst_of

Step = dict[str, Any]
SENDS = [
    {"name": "send", "effect": "Irreversible", "returns": {"trust": "Trusted", "sensitivity": "Public"}},
    {"name": "note", "effect": "Reversible", "reach": "Internal", "returns": {"trust": "Trusted"}},
]
INSIDE = [function | {"reach": "Internal"} for function in FUNCTIONS]
CLEAN = {"name": "crm", "tool": {"tool": "t", "function": "clean", "arguments": {"q": "$( steps.web.output )"}}}
CLEANED = CLEAN | {"name": "cleaned", "when": "steps.web.output.text == 'x'"}
GOES_ON = {"onError": {"action": "Continue"}}
TOOLS = {"t": tool(*INSIDE, *SENDS)}


def flow(*steps: Step, trust: str = "Trusted", name: str = "flow", **spec: Any) -> Workflow:
    spec = {"steps": [*steps], "input": {"trust": trust}, "defaults": {"model": "m"}} | spec
    return Workflow.model_validate({"metadata": {"name": name}, "spec": spec})


def send(text: str, name: str = "mail", function: str = "send") -> Step:
    return {"name": name, "tool": {"tool": "t", "function": function, "arguments": {"text": text}}}


def notice(text: str, function: str = "send") -> Step:
    notify = {"tool": "t", "function": function, "arguments": {"text": text}}
    return {"name": "sign", "approval": {"message": "so?", "from": {"users": ["alice"]}, "notify": notify}}


def leaks(*steps: Step, others: dict[str, Workflow] | None = None, **spec: Any) -> list[str]:
    return [str(leak) for leak in worst_of(flow(*steps, **spec), TOOLS, others or {}).leaks]


CHECK = {"name": "check", "validate": {"value": "$( steps.web.output.text )", "schema": {"enum": ["yes", "no"]}}}
BOTH = "$( steps.web.output ) $( steps.crm.output )"
SAYS = "may send Confidential data from 'crm' after untrusted data from 'web'"

FOUND: dict[str, tuple[tuple[Step, ...], dict[str, Any], list[str]]] = {
    "what reads both and mails": ((FETCH, CUSTOMER, send(BOTH)), {}, [f"step 'mail' {SAYS}"]),
    "what a model made of both": (
        (FETCH, CUSTOMER, say("sum", BOTH), send("$( steps.sum.output.text )")),
        {},
        [f"step 'mail' {SAYS}"],
    ),
    "an agent that has all three": (
        ({"name": "a", "agent": {"model": "m", "prompt": "hi", "tools": [{"tool": "t"}]}},),
        {},
        ["step 'a' may send Confidential data from 'a' after untrusted data from 'a'"],
    ),
    "an untrusted input": (
        (CUSTOMER, send("$( input.text ) $( steps.crm.output )")),
        {"trust": "Untrusted"},
        ["step 'mail' may send Confidential data from 'crm' after untrusted data from the input"],
    ),
    "whether it is sent": (
        (FETCH, CUSTOMER, send("$( steps.crm.output )") | {"when": "steps.web.output.text == 'go'"}),
        {},
        [f"step 'mail' {SAYS}"],
    ),
    "one of them is not read": ((FETCH, CUSTOMER, send("$( steps.crm.output )")), {}, []),
    "a choice that was checked": (
        (FETCH, CUSTOMER, CHECK, send("$( steps.check.output.value ) $( steps.crm.output )")),
        {},
        [],
    ),
    "what was checked read elsewhere": ((FETCH, CUSTOMER, CHECK, send(BOTH)), {}, [f"step 'mail' {SAYS}"]),
    "a choice that need not pass": (
        (
            FETCH,
            CUSTOMER,
            CHECK | {"validate": CHECK["validate"] | {"onFailure": {"action": "Continue"}}},
            send("$( steps.check.output.value ) $( steps.crm.output )"),
        ),
        {},
        [f"step 'mail' {SAYS}"],
    ),
    "a text that was checked": (
        (
            FETCH,
            CUSTOMER,
            CHECK | {"validate": CHECK["validate"] | {"schema": {"type": "string"}}},
            send("$( steps.check.output ) $( steps.crm.output )"),
        ),
        {},
        [f"step 'mail' {SAYS}"],
    ),
    "it stays inside": ((FETCH, CUSTOMER, send(BOTH, function="note")), {}, []),
    "people are told by what goes out": ((FETCH, CUSTOMER, notice(BOTH)), {}, [f"step 'sign' {SAYS}"]),
    "nobody reads what telling them brings": (
        (CUSTOMER, notice("hello", "fetch"), send("$( steps.sign.output.reason ) $( steps.crm.output )")),
        {},
        [],
    ),
    "a contract that says what it returns": ((FETCH, CLEAN), {}, []),
    "in a block": (
        ({"name": "b", "block": "inner"},),
        {"blocks": [{"name": "inner", "steps": [FETCH, CUSTOMER, send(BOTH)]}]},
        [f"step 'mail' {SAYS}"],
    ),
    "through a block's output": (
        (FETCH, {"name": "b", "block": "inner"}, send("$( steps.web.output ) $( steps.b.output )")),
        {"blocks": [{"name": "inner", "steps": [CUSTOMER]}]},
        [f"step 'mail' {SAYS}"],
    ),
    "of what ran only if a stranger said so": (
        (FETCH, CUSTOMER, CLEANED, send("$( steps.cleaned.output ) $( steps.crm.output )")),
        {},
        [f"step 'mail' {SAYS}"],
    ),
    "after others of a block failed": (
        ({"name": "b", "block": "inner"},),
        {"blocks": [{"name": "inner", "steps": [FETCH | GOES_ON, CUSTOMER | GOES_ON, send("hello")]}]},
        [f"step 'mail' {SAYS}"],
    ),
    "in the block that handles it": (
        (CUSTOMER, FETCH | {"onError": {"block": "inner"}}),
        {"blocks": [{"name": "inner", "steps": [send("$( error.message ) $( steps.crm.output )")]}]},
        [f"step 'mail' {SAYS}"],
    ),
    "in what runs at the end": (
        (FETCH, CUSTOMER),
        {"blocks": [{"name": "inner", "steps": [send("$( toJson(steps) )")]}], "finally": "inner"},
        [f"step 'mail' {SAYS}"],
    ),
    "in the second round of a loop": (
        (CUSTOMER, {"name": "b", "block": "inner", "repeat": {"until": "false", "maxIterations": 2}}),
        {"blocks": [{"name": "inner", "steps": [send("$( previous ) $( steps.crm.output )"), FETCH]}]},
        [f"step 'mail' {SAYS}"],
    ),
}


@pytest.mark.requirement("A36")
@pytest.mark.parametrize(("steps", "spec", "expected"), FOUND.values(), ids=FOUND)
def test_what_may_leak_is_told_with_where_it_comes_from(
    steps: tuple[Step, ...], spec: dict[str, Any], expected: list[str]
) -> None:
    assert leaks(*steps, **spec) == expected


def test_the_place_is_the_field() -> None:
    found = worst_of(flow(FETCH, CUSTOMER, send(BOTH)), TOOLS, {}).leaks
    assert [leak.path for leak in found] == ["spec.steps[2].tool"]


def test_a_child_that_sends_what_it_is_given_leaks_for_its_parent() -> None:
    child = flow(send("$( input.text )"), name="mailer")
    ask = {"name": "ask", "workflow": {"workflow": "mailer", "input": {"text": BOTH}}}
    assert worst_of(child, TOOLS, {}).leaks == []
    assert leaks(FETCH, CUSTOMER, ask, others={"mailer": child}) == [f"step 'ask' {SAYS}"]
    assert leaks(FETCH, ask, others={"mailer": child}) == []


def test_a_child_that_sends_anything_tells_what_decided_that_it_runs() -> None:
    child = flow(send("hello"), name="mailer", input={"trust": "Trusted"})
    ask = {"name": "ask", "when": "steps.web.output.text != steps.crm.output.text", "workflow": {"workflow": "mailer"}}
    assert leaks(FETCH, CUSTOMER, ask, others={"mailer": child}) == [f"step 'ask' {SAYS}"]
    assert leaks(FETCH, CUSTOMER, ask | {"when": "true"}, others={"mailer": child}) == []


def test_what_a_child_brings_counts() -> None:
    child = flow(CUSTOMER, name="looker", output="$( steps.crm.output )")
    ask = {"name": "ask", "workflow": {"workflow": "looker"}}
    mail = send("$( steps.web.output ) $( steps.ask.output )")
    assert leaks(FETCH, ask, mail, others={"looker": child}) == [f"step 'mail' {SAYS}"]


def test_of_what_does_not_exist_everything_is_expected() -> None:
    ask = {"name": "ask", "workflow": {"workflow": "nobody"}}
    (leak,) = leaks(ask, send("$( steps.ask.output )"))
    assert (
        leak == "step 'mail' may send Confidential data from Workflow nobody after untrusted data from Workflow nobody"
    )


def test_a_workflow_that_runs_itself_comes_to_an_end() -> None:
    again = flow({"name": "again", "workflow": {"workflow": "flow"}, "when": "false"}, name="flow")
    assert worst_of(again, TOOLS, {"flow": again}).leaks == []


def test_children_of_children_are_looked_at_once_each() -> None:
    def twice(child: str) -> list[Step]:
        return [{"name": f"s{n}", "workflow": {"workflow": child}} for n in range(3)]

    line = {f"w{n}": flow(*twice(f"w{n + 1}"), name=f"w{n}") for n in range(15)} | {"w15": flow(CUSTOMER, name="w15")}
    known: dict[Any, Any] = {}
    assert worst_of(line["w0"], TOOLS, line, known=known).leaks == []
    assert len(known) < 60, "three of three of three would be millions"


def test_of_too_many_children_everything_is_expected() -> None:
    children = {f"w{n}": flow(value("a", 1), name=f"w{n}") for n in range(MOST_CHILDREN + 1)}
    asks = [{"name": f"s{n}", "workflow": {"workflow": f"w{n}"}} for n in range(MOST_CHILDREN + 1)]
    rest = [{"name": "rest", "steps": asks[150:]}]
    found = worst_of(flow(*asks[:150], {"name": "last", "block": "rest"}, blocks=rest), TOOLS, children)
    assert found.contexts[MAIN, "s0"] == TRUSTED
    assert found.contexts["rest", f"s{MOST_CHILDREN}"] == WORST


def test_an_expression_that_cannot_be_read_is_told_by_the_checks_and_breaks_nothing() -> None:
    assert worst_of(flow(value("a", "$( input"), value("b", "$( ((( )"), output="$( x"), TOOLS, {}).leaks == []


AGAIN = {"name": "again", "workflow": {"workflow": "flow", "input": {"text": BOTH}}, "when": "input.text == ''"}


@pytest.mark.requirement("A36")
def test_what_a_workflow_hands_to_itself_may_leak_there() -> None:
    itself = flow(FETCH, CUSTOMER, send("$( input.text )"), AGAIN)
    assert [str(leak) for leak in worst_of(itself, TOOLS, {"flow": itself}).leaks] == [f"step 'again' {SAYS}"]


@pytest.mark.requirement("A36")
def test_so_it_does_by_way_of_another() -> None:
    itself = flow(
        FETCH, CUSTOMER, send("$( input.text )"), AGAIN | {"workflow": {"workflow": "between", "input": {"text": BOTH}}}
    )
    back = {"name": "back", "workflow": {"workflow": "flow", "input": {"text": "$( input.text )"}}}
    others = {"flow": itself, "between": flow(back, name="between")}
    assert [str(leak) for leak in worst_of(itself, TOOLS, others).leaks] == [f"step 'again' {SAYS}"]


@pytest.mark.requirement("A36")
def test_what_is_not_looked_at_any_more_may_leak() -> None:
    line = {f"w{n}": flow({"name": "s", "workflow": {"workflow": f"w{n + 1}"}}, name=f"w{n}") for n in range(30)}
    assert worst_of(line["w0"], TOOLS, line | {"w30": flow(CUSTOMER, name="w30")}).leaks != [], "too deep"
    children = {f"c{n}": flow(value("a", 1), name=f"c{n}") for n in range(MOST_CHILDREN + 1)}
    asks = [{"name": f"s{n}", "workflow": {"workflow": f"c{n}"}} for n in range(MOST_CHILDREN + 1)]
    rest = [{"name": "rest", "steps": asks[150:]}]
    found = worst_of(flow(*asks[:150], {"name": "last", "block": "rest"}, blocks=rest), TOOLS, children)
    assert f"s{MOST_CHILDREN}" in {leak.step for leak in found.leaks}, "too many"


def test_contexts_are_those_of_what_is_read() -> None:
    found = worst_of(flow(FETCH, CUSTOMER, value("both", BOTH), value("own", "x")), TOOLS, {})
    assert [found.contexts[MAIN, name] for name in ("web", "crm", "both", "own")] == [WEB, CRM, WORST, TRUSTED]


def _static(found: dict[tuple[str, str], Label], path: str) -> Label | None:
    """Return the worst label of a step by its path; of one in a block that of all steps of its name in blocks."""
    name = re.sub(r"[#\[].*$", "", path[path.rfind("/") + 1 :])
    outer = "/" not in path
    labels = [label for (where, step), label in found.items() if step == name and (where == MAIN) is outer]
    worst: Label | None = None
    for label in labels:
        worst = label if worst is None else worst.join(label)
    return worst


def endorsing(value: Any) -> Any:
    """Return a spec whose `validate` steps have schemas that let no text through."""
    if isinstance(value, list):
        return [endorsing(item) for item in value]
    if not isinstance(value, dict):
        return value
    closed = {"additionalProperties": False, "properties": {"n": {"type": "integer"}, "word": {"const": "yes"}}}
    found = {key: endorsing(item) for key, item in value.items()}
    if "validate" in found:
        found["validate"]["schema"] = {"type": "object", **closed}
    return found


@given(specs(), st.integers(0, 3), st.integers(0, 2**20), st.sampled_from([0, 0, 25]), st.booleans())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@pytest.mark.requirement("A36", "A37")
def test_no_run_finds_a_worse_label_than_was_expected(
    spec: dict[str, Any], n: int, seed: int, errors_percent: int, untrusted: bool
) -> None:
    spec = endorsing(spec)
    a_world = world(seed, errors_percent=errors_percent)
    trust = "Untrusted" if untrusted else "Trusted"
    workflow = Workflow.model_validate({"metadata": {"name": "flow"}, "spec": spec | {"input": {"trust": trust}}})
    found = dict(worst_of(workflow, a_world.tools, a_world.workflows).contexts)
    plan = plan_of(**spec)
    driver = Driver(plan, a_world, accepted(plan, {"n": n}, inputLabel=f"{trust}/Public"))
    driver.run()
    for path, step in driver.state.steps.items():
        expected = _static(found, path)
        if expected is not None:
            assert expected.join(step.context) == expected, (path, step.context, expected)
            assert expected.join(step.label) == expected, (path, step.label, expected)
    for call in a_world.performed:
        expected = _static(found, call.id.path)
        assert expected is None or expected.join(call.label) == expected, (call.id.path, call.label, expected)
