"""What is known of the types of expressions before they run: what cannot be a condition, a list or a time, or added."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import Finding, check_workflow
from fairlead.flow.expressions import ExpressionError, compile_expression, evaluate
from fairlead.flow.shapes import types_of
from fairlead.flow.visibility import Scope

TEXT = {"type": "string"}
INPUT: dict[str, Any] = {
    "type": "object",
    "required": ["text", "count", "flag", "words", "person"],
    "properties": {
        "text": TEXT,
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "words": {"type": "array", "items": TEXT},
        "pair": {"type": "array", "prefixItems": [TEXT], "items": {"type": "integer"}},
        "person": {"type": "object", "properties": {"name": TEXT, "age": {"type": "integer"}}},
        "people": {"type": "array", "items": {"type": "object", "properties": {"name": TEXT}}},
        "note": {"type": ["string", "null"]},
        "either": {"anyOf": [TEXT, {"type": "integer"}]},
    },
}


def check(steps: str) -> list[Finding]:
    data = {"input": {"schema": INPUT}, **yaml.safe_load(steps)}
    return check_workflow(WorkflowSpec.model_validate(data), models=None, tools=None)


def computed(expression: str) -> list[Finding]:
    return check(f'steps: [{{name: a, transform: {{value: "$( {expression} )"}}}}]')


CONDITION = "a condition must be true or false; this is of type "
WRONG = {
    "a condition that is a text": ("{name: a, when: \"'x'\", transform: {value: 1}}", "when", CONDITION + "string"),
    "a condition that is a number": ("{name: a, when: '5', transform: {value: 1}}", "when", CONDITION + "integer"),
    "a condition that is null": ("{name: a, when: 'null', transform: {value: 1}}", "when", CONDITION + "null"),
    "a condition that the schema says is a text": (
        "{name: a, when: input.text, transform: {value: 1}}",
        "when",
        CONDITION + "string",
    ),
    "an end of a loop that is a number": (
        "{name: a, repeat: {until: 1 + 1, maxIterations: 2}, transform: {value: 1}}",
        "repeat.until",
        CONDITION + "integer",
    ),
    "an end of a loop by the output": (
        "{name: a, repeat: {until: output.text, maxIterations: 2}, generate: {model: m, prompt: x}}",
        "repeat.until",
        CONDITION + "string",
    ),
    "a rule that is a text": (
        "{name: a, validate: {value: 1, rules: [{expression: \"'a'\", message: m}]}}",
        "validate.rules[0].expression",
        CONDITION + "string",
    ),
    "a choice by a list": (
        "{name: a, route: {value: x, choices: [{name: b, when: input.words}]}}",
        "route.choices[0].when",
        CONDITION + "array",
    ),
    "items that are no list": (
        "{name: a, forEach: {items: $( 5 )}, transform: {value: 1}}",
        "forEach.items",
        "items must be a list, or one $( ) that gives one; this is of type integer",
    ),
    "items that become a text": (
        "{name: a, forEach: {items: \"$( input.text + 'x' )\"}, transform: {value: 1}}",
        "forEach.items",
        "this is of type string",
    ),
    "a time that is a number": (
        "{name: a, wait: {until: $( 5 )}}",
        "wait.until",
        "a text is needed; this is of type i",
    ),
    "a time that the schema says is none": ("{name: a, wait: {until: $( input.flag )}}", "wait.until", "type boolean"),
    "a member of a computed item": (
        "{name: a, forEach: {items: '$( [1, 2] )', as: x}, transform: {value: $( x.y )}}",
        "transform.value",
        "'x' is of type integer and has no members",
    ),
    "a member of a written item": (
        "{name: a, forEach: {items: [true], as: x}, transform: {value: $( x.y )}}",
        "transform.value",
        "'x' is of type boolean and has no members",
    ),
    "an item that is added to": (
        "{name: a, forEach: {items: $( input.words ), as: x}, transform: {value: $( x + 1 )}}",
        "transform.value",
        "cannot add string and int; write string(the int)",
    ),
}


@pytest.mark.parametrize(("step", "field", "message"), WRONG.values(), ids=WRONG)
def test_a_value_of_the_wrong_type_is_found_with_what_is_needed(step: str, field: str, message: str) -> None:
    (finding,) = check(f"steps: [{step}]")
    assert finding.path == f"spec.steps[0].{field}"
    assert message in finding.message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("input.text + 1", "line 1, column 12: cannot add string and int; write string(the int)"),
        ("input.count + 'a'", "cannot add int and string; write string(input.count)"),
        ("input.person.name + input.person.age", "cannot add string and int; write string(input.person.age)"),
        ("input.words + 1", "cannot add list and int"),
        ("input.text > 5", "cannot compare string and int by size"),
        ("size(input.count)", "size() does not take int"),
        ("!input.text", "! takes true or false only"),
        ("input.words[0].foo", "a value of type string has no members"),
        ("input.words.map(word, word.foo)", "a value of type string has no members"),
        ("input.text.map(letter, letter)", "a value of type string cannot be looped over"),
        ("input.count.contains('1')", "contains() does not take int and string"),
        ("has(input.ratio) && input.flag < 1", "cannot compare bool and int by size"),
    ],
)
def test_what_is_sure_to_fail_is_found_by_the_types_of_the_schema(expression: str, message: str) -> None:
    (finding,) = computed(expression)
    assert finding.path == "spec.steps[0].transform.value"
    assert finding.message.endswith(message)


@pytest.mark.parametrize(
    "expression",
    [
        "input.text == 5",
        "input.text == null || input.count == 2.0",
        "input.flag ? input.text : 0",
        "has(input.ratio) ? input.text : null",
        "has(input.text) && has(input.person.name)",
        "[input.text, 1, null]",
        "1 in input.words",
        "input.words + [1]",
        "input.count + 1.5",
        "input.count > 1.5",
        "input.ratio + 1",
        "int(input.flag)",
        "input.?text.orValue(0)",
        "input.pair[0] + 'a'",
        "input.either + 1",
        "input.note + 'a'",
        "get(input.person, 'name') == 1",
        "toJson(input.people)",
        "input.people.map(input, input.name + 1)",
        "[{'text': 1}].map(input, input.text + 1)",
        "input['text'] + 'a'",
        "input.text.size() + size(input.words) + size(input.person)",
        "'%s %d'.format([input.text, input.count])",
        "input.anything.at.all + 1",
    ],
)
def test_what_may_do_when_it_runs_is_no_finding(expression: str) -> None:
    assert computed(expression) == []


def test_outputs_of_steps_have_the_types_that_are_known_of_them() -> None:
    (finding,) = check(
        "steps: [{name: a, validate: {value: 1, rules: [{expression: 'true', message: m}]}}, "
        "{name: b, transform: {value: '$( steps.a.output.passed + 1 )'}}]"
    )
    assert (finding.path, "cannot add bool and int" in finding.message) == ("spec.steps[1].transform.value", True)


def test_a_step_of_a_block_that_differs_by_caller_has_no_type() -> None:
    assert not check(
        "steps: [{name: s, forEach: {items: [1], as: n}, block: b}, "
        "{name: t, forEach: {items: [x], as: n}, block: b}]\n"
        "blocks: [{name: b, steps: [{name: x, transform: {value: '$( n + 1 )'}}]}]"
    )


def _expressions(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["+", "-", "*", "/", "%", "<", "<=", ">", "==", "in"])
    return st.one_of(
        st.builds(lambda one, operator, other: f"({one} {operator} {other})", inner, binary, inner),
        st.builds(lambda one: f"size({one})", inner),
        st.builds(lambda one: f"!({one})", inner),
        st.builds(lambda one: f"-({one})", inner),
        st.builds(lambda one: f"({one}).name", inner),
        st.builds(lambda one: f"({one})[0]", inner),
        st.builds(lambda one, other: f"[{one}, {other}]", inner, inner),
        st.builds(lambda one, other: f"({one}).contains({other})", inner, inner),
        st.builds(lambda one: f"({one}).map(input, input)", inner),
    )


NAMES = ("text", "count", "ratio", "flag", "words", "person", "person.name", "note")
LEAVES = [*(f"input.{name}" for name in NAMES), "1", "1.5", "'a'", "true", "null", "[]"]
EXPRESSIONS = st.recursive(st.sampled_from(LEAVES), _expressions, max_leaves=5)
INPUTS = st.fixed_dictionaries(
    {
        "text": st.sampled_from(["", "a"]),
        "count": st.integers(-2, 2),
        "flag": st.booleans(),
        "words": st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
        "person": st.fixed_dictionaries({}, optional={"name": st.just("Ada"), "age": st.just(36)}),
    },
    optional={"ratio": st.sampled_from([1, 2.5]), "note": st.sampled_from([None, "n"])},
)
JSON_TYPES: dict[type, str] = {bool: "boolean", str: "string", list: "array", dict: "object", type(None): "null"}


@given(EXPRESSIONS, INPUTS)
def test_what_the_types_forbid_fails_with_every_input_and_what_they_promise_is_so(
    text: str, given: dict[str, Any]
) -> None:
    try:
        compile_expression(text)
    except ExpressionError:
        assume(False)
    shape, problem = Scope({}, {"input": INPUT}).gives(text, {})
    try:
        value = evaluate(text, {"input": given})
    except ExpressionError:
        return
    assert not problem, (text, value, problem)
    if types := types_of(shape):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        assert number == bool({"integer", "number"} & {*types}), (text, value, types)
        assert number or JSON_TYPES[type(value)] in types, (text, value, types)
