"""What an expression is worth, what it refuses, and that it cannot cost much."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.flow.expressions import ExpressionError, compile_expression, evaluate, evaluate_bool

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("input.a.b + 1", 5),
        ("input['a'].b", 4),
        ("input.?a.?x", None),
        ("optional.none()", None),
        ("optional.of(3)", 3),
        ("input.?a.?x.orValue('none')", "none"),
        ("[?input.?x, 1]", [1]),
        ("timestamp('2024-01-01T02:00:00.5+02:00')", "2024-01-01T00:00:00.500000Z"),
        ("duration('-1500ms')", "-1.5s"),
        ("duration('2h')", "7200s"),
        ("math.greatest(1, 2)", 2),
        ("base64.encode(b'hello')", "aGVsbG8="),
        ("'a,b'.split(',')", ["a", "b"]),
        ("toJson({'b': [1, null], 'a': 'x'})", '{"a":"x","b":[1,null]}'),
        ("fromJson('{\"a\": [1, 2.5]}')", {"a": [1, 2.5]}),
        ("get(input, 'a.b')", 4),
        ("get(input, 'items.1.x')", 2),
        ("get(input, 'items.7.x')", None),
        ("get(input, 'nothing.at.all')", None),
        ("get(null, 'a')", None),
        ("input.items.map(i, i.x * 2)", [2, 4]),
        ("input.items.filter(i, i.x > 1)", [{"x": 2}]),
        ("input.a.all(k, k == 'b')", True),
        ("input.big", 2**53 + 1),
        ("has(input.a.c)", False),
        ("{'a': input.?a.orValue(1), ?'b': input.?nothing, ?'c': input.?big}", {"a": {"b": 4}, "c": 2**53 + 1}),
        ("type(input.a) == map", True),
        ("1 // one", 1),
    ],
)
def test_an_expression_gives_json(text: str, value: Any) -> None:
    scope = {"input": {"a": {"b": 4}, "items": [{"x": 1}, {"x": 2}], "big": 2**53 + 1}}

    assert evaluate(text, scope) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "division by zero"),
        ("input.nothing.x", "there is no 'nothing'"),
        ("input[input.secret]", "there is no such key"),
        ("int(input.secret)", "a conversion failed"),
        ("'a'.matches(input.open)", "a regular expression is invalid"),
        ("input.secret + 1", "cannot add string and int; write string(the int)"),
        ("input.secret.x", "of something that is no object"),
        ("input.list[5]", "outside of its list"),
        ("input.secret ? 1 : 2", "neither true nor false"),
        ("input.map(k, k)", "a map has no order"),
        ("{'a': {'b': 1}}.a.filter(k, true)", "a map has no order"),
        ("input.nothingElse", "there is no 'nothingElse'"),
        ("b'abc'", "bytes are not JSON"),
        ("type(1)", "a type, not JSON"),
        ("{1: 2}", "keys that are not strings"),
        ("0.0 / 0.0", "not finite"),
        ("[optional.of(1)]", "unwrapped"),
        ("{'a': optional.none()}", "unwrapped"),
        ("{'a': 1, 'b': [{'c': input.?nothing}]}", "unwrapped"),
        ("{?'a': optional.of(optional.of(1))}", "unwrapped"),
        ("[1].map(x, {'a': optional.of(x)})", "unwrapped"),
        ("toJson({'a': optional.of(input.secret)})", "unwrapped"),
        ("{null: 1}", "keys that are not strings"),
        ("dyn(optional.of(1))", "unwrapped"),
        ("fromJson(input.secret)", "fromJson takes JSON only"),
        ("fromJson('\"\\\\u0000\"')", "NUL"),
        ("nobody.x", "'nobody' is not in scope here"),
        ("huge", "does not fit into 64 bits"),
        ("nul.text", "NUL"),
        ("surrogate", "surrogate"),
        ("infinite", "not finite"),
        ("long.size()", "more than 1000 items"),
        ("input.list.map(a, dyn(null)).map(b, b.x)", "of something that is no object"),
    ],
)
def test_a_failure_is_raised_and_repeats_no_content(text: str, message: str) -> None:
    scope = {
        "input": {"secret": "s3cr3t", "open": "(s3cr3t", "list": [1]},
        "huge": 2**63,
        "nul": {"text": "s3cr3t\0"},
        "surrogate": "\ud800",
        "infinite": float("inf"),
        "long": list(range(1001)),
    }

    with pytest.raises(ExpressionError) as caught:
        evaluate(text, scope)

    assert message in caught.value.message
    assert "s3cr3t" not in caught.value.message
    assert caught.value.error_class == "Invalid"


@pytest.mark.requirement("A26")
@pytest.mark.parametrize(
    "text",
    [
        "().__class__.__mro__[1].__subclasses__()",
        "constructor.constructor('return 1')()",
        "''.__class__",
        "(" * 1500 + "1" + ")" * 1500,
        "[" * 2000 + "]" * 2000,
        "x" + ".a" * 2000,
        "1" + "+1" * 2000,
        "a" * 4097,
        "1 +",
        "",
        "\0",
        "\ud800",
        "[1, 2].map(a, [1, 2].map(b, [1, 2].map(c, nothing())))",
    ],
)
def test_what_is_no_expression_is_refused_when_it_is_compiled_or_run(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text, {"x": {}, "constructor": {}})


@pytest.mark.requirement("A26")
@pytest.mark.parametrize(
    "text",
    [
        "items.all(a, items.all(b, a + b >= 0))",
        "items.map(a, items.map(b, items.map(c, c)))",
        "text.split('').map(a, a)",
    ],
)
def test_loops_are_bounded(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"10,000 iterations|more than 1000 items|more than 64 MiB"):
        evaluate(text, {"items": list(range(1000)), "text": "a" * 50_000})


@pytest.mark.requirement("A26")
@pytest.mark.parametrize(
    "text",
    [
        "text.replace('a', text)",
        "text.replace('', text).size()",
        "items.map(i, text).join(text)",
        "items.map(i, text + text).size()",
        "[text].map(a, a + a + a + a).map(a, a + a + a + a).map(a, a + a + a + a).map(a, a + a + a + a).size()",
        "items.all(i, (text + string(i)).size() > 0)",
        "[" + ", ".join(["text + text"] * 300) + "].size()",
        "'%s%s%s'.format([text, text, text]).replace('a', 'b' + text)",
        "{'a': text.replace('a', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb')}.a.replace('b', 'cccccccccccccccc')",
        "optional.of(text).optMap(t, t.replace('a', t)).orValue('')",
    ],
)
def test_text_cannot_grow_without_bound(text: str) -> None:
    with pytest.raises(ExpressionError, match="may make more than 64 MiB"):
        evaluate(text, {"items": list(range(1000)), "text": "a" * 200_000})


@pytest.mark.parametrize(
    "text",
    [
        "'Summary: ' + big",
        "big.replace(' ', ', ').size() > 0",
        "rows.map(r, r.text + '; ' + r.source).join(', ').size()",
        "rows.filter(r, r.text.contains('x')).map(r, {'text': r.text, 'quote': '\\'' + r.text + '\\''}).size()",
        "toJson(rows).size()",
        "big.split(' ').size()",
        "rows.filter(r, r.source == 'z').map(r, r.text)[0].size()",
        "ninety.all(a, ninety.all(b, a + b >= 0))",
    ],
)
def test_ordinary_work_on_megabytes_is_not_refused(text: str) -> None:
    rows = [{"text": "x" * 2000, "source": "handbook"} for _ in range(900)] + [{"text": "y" * 900_000, "source": "z"}]

    assert evaluate(text, {"big": "word " * 600_000, "rows": rows, "ninety": list(range(90))})


@pytest.mark.requirement("A26")
def test_a_regular_expression_takes_linear_time() -> None:
    assert evaluate("text.matches('(a+)+$')", {"text": "a" * 50_000 + "b"}) is False


@pytest.mark.requirement("A26")
def test_deeply_nested_data_is_refused() -> None:
    value: Any = 1
    for _ in range(10_000):
        value = [value]

    with pytest.raises(ExpressionError, match="64 levels"):
        evaluate("x", {"x": value})


def test_an_error_of_the_text_names_line_and_column() -> None:
    with pytest.raises(ExpressionError, match="line 2, column 3"):
        compile_expression("1 +\n  + 2 )")


def test_only_what_is_referenced_is_read() -> None:
    scope = {"input": {"small": 1, "unfit": list(range(2000))}, "other": object()}

    assert evaluate("input.small", scope) == 1


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("steps.topic.output.choice == 'a'", ["steps.topic.output.choice"]),
        ("steps['topic'].?output[0].x", ["steps.topic.output"]),
        ("input.items.map(steps, steps.x + previous)", ["input.items", "previous"]),
        ("input[run.name].x", ["input", "run.name"]),
        ("has(error.reason) && type(iteration) == int && math.abs(-1) == 1", ["error.reason", "iteration"]),
        ("optional.of(1).optMap(v, v + output)", ["output"]),
        ("{'a': input.a}.a", ["input.a"]),
        ("1 + 1", []),
    ],
)
def test_references_name_roots_and_members(text: str, references: list[str]) -> None:
    assert [str(reference) for reference in compile_expression(text).references] == references


def test_a_condition_is_true_or_false() -> None:
    assert evaluate_bool("input == 1", {"input": 1}) is True
    with pytest.raises(ExpressionError, match="true or false"):
        evaluate_bool("input", {"input": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("input.n + 1.0", "cannot add int and double; write double(input.n)"),
        ("1.5 * input.n", "cannot multiply double by int; write double(input.n)"),
        ("input.n / 2.0 + input.n / 3.0", "cannot divide int by double; write double(the int)"),
        ("input.n - input.f", "cannot subtract double from int; write double(input.n)"),
        ("'n: ' + input.n", "cannot add string and int; write string(input.n)"),
        ("input.none + 1", "cannot add null and int"),
        ("input.text < 1", "cannot compare string and int by size"),
        ("string(input.none)", "string() does not take null"),
        ("input.n.size()", "size() does not take int"),
        ("input.n.startsWith('a')", "startsWith() does not take int and string"),
        ("math.greatest(input.text, 1)", "max() does not take string and int"),
        ("-input.text", "cannot negate string"),
        ("!input.n", "! takes true or false only"),
        ("input.n && true", "&& takes true or false only"),
        ("input.n in input.n", "`in` looks into a list or a map, and this is neither"),
        ("input.list['a']", "an item of a list has a number, not a string"),
        ("input.n[0]", "an item is read of what is neither a list nor a map, but int"),
    ],
)
def test_what_cannot_be_done_is_told_as_people_say_it(text: str, message: str) -> None:
    scope = {"input": {"n": 2, "f": 1.5, "text": "s3cr3t", "none": None, "list": [1]}}
    with pytest.raises(ExpressionError) as caught:
        evaluate(text, scope)
    assert caught.value.message == message


def test_nulls_without_end_do_not_end_the_process() -> None:
    program = (
        "from fairlead.flow.expressions import evaluate\n"
        "for _ in range(100): evaluate('[x, x]', {'x': [None] * 1000})\n"
        "print('done')"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout == b"done\n"


def test_what_an_expression_reads_has_a_bound() -> None:
    lists = [[0] * 1000] * 500
    assert evaluate("size(x)", {"x": lists[:499]}) == 499
    with pytest.raises(ExpressionError, match="'x' cannot be read: it holds more than 500000 values"):
        evaluate("size(x)", {"x": lists})


@given(JSON)
def test_every_json_value_passes_unchanged(value: Any) -> None:
    assert evaluate("x", {"x": value}) == value
    assert evaluate("[x][0]", {"x": value}) == value
    assert evaluate("get({'a': x}, 'a')", {"x": value}) == value


@given(st.text())
def test_no_text_does_worse_than_an_expression_error(text: str) -> None:
    try:
        json.dumps(evaluate(text, {"input": {"a": 1}}))
    except ExpressionError as error:
        assert error.message


def test_results_are_the_same_in_another_process() -> None:
    program = (
        "from fairlead.flow.expressions import evaluate\n"
        "scope = {'input': {str(i): i for i in range(50)}}\n"
        "print(repr(evaluate(\"[input, {'z': input, 'a': toJson(input)}]\", scope)))"
    )
    outputs = {subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout for _ in "ab"}

    assert len(outputs) == 1
