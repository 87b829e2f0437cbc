"""How large values may become: refused when they are made, not when they are written."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.test_scope import compute
from tests.unit.flow.world import Driver, run_steps, step

from fairlead.api.canonical import canonical_json
from fairlead.flow.cost import MAX_MADE_BYTES
from fairlead.flow.expressions import ExpressionError, evaluate
from fairlead.flow.template import render
from fairlead.flow.values import MAX_RUN_BYTES, MAX_VALUE_BYTES, MAX_VALUE_DEPTH, size_of

MIB = 1024 * 1024
TEXT = "0123456789abcdef" * 4
LOOP = {"until": "false", "maxIterations": 1000}


def failure(driver: Driver, path: str) -> tuple[str, str]:
    found = step(driver.state, path).error
    assert found is not None
    return f"{found.error_class}/{found.reason}", found.message


def largest(driver: Driver) -> int:
    return max(len(canonical_json(entry.data)) for entry in driver.journal.entries)


@pytest.mark.requirement("A26")
@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"a": "$( previous )", "b": "$( previous )", "c": TEXT}, "transform.value.b: `previous`"),
        (["$( previous )", ["$( previous )"], TEXT], "transform.value[1][0]: `previous`"),
        ("$( [previous, previous, '" + TEXT + "'] )", "transform.value: `[previous, previous,"),
        ("$( {'a': previous, 'b': {'c': previous, 'd': '" + TEXT + "'}} )", "transform.value: `{'a': previous,"),
        ("$( previous )$( previous )" + TEXT, "transform.value: `previous`"),
        ("$( [1, 2].map(x, previous) + ['" + TEXT + "'] )", "transform.value: `[1, 2].map"),
    ],
    ids=["map", "list", "CEL list", "CEL map", "text", "CEL loop"],
)
def test_a_value_that_doubles_is_refused_before_it_is_larger_than_a_value_may_be(value: Any, field: str) -> None:
    driver = run_steps([compute("big", value, repeat=LOOP), compute("after", 1)])
    why, message = failure(driver, "big")
    assert message.startswith(field)
    assert why == "Invalid/TooLarge" or "nested more than" in message
    assert largest(driver) < MAX_VALUE_BYTES + 1000
    assert driver.state.terminal is not None and driver.state.terminal.reason == "StepFailed"


def test_a_value_that_becomes_ever_deeper_is_refused() -> None:
    why, message = failure(run_steps([compute("deep", ["$( previous )"], repeat=LOOP)]), "deep")
    assert why == "Invalid/ExpressionFailed" or why == "Invalid/TooLarge"
    assert f"nested more than {MAX_VALUE_DEPTH} levels deep" in message


@pytest.mark.parametrize("value", ["é" * 100, [[[{"a": [1, None, 1.5]}]]], {}, "\n\0"])
def test_a_size_is_that_of_canonical_json(value: Any) -> None:
    assert size_of(value) == len(canonical_json(value))


def test_a_size_is_of_json_that_is_not_nested_too_deep() -> None:
    value: Any = 1
    for _ in range(MAX_VALUE_DEPTH):
        value = [value]
    assert size_of(value) == 2 * MAX_VALUE_DEPTH + 1
    with pytest.raises(ValueError, match="nested more than 128 levels deep"):
        size_of([value])
    with pytest.raises(ValueError, match="no JSON"):
        size_of({1, 2})


@pytest.mark.parametrize("template", ["$( input.t )$( input.t )", ["$( input.t )", "$( input.t )"], "$( input )"])
def test_all_parts_of_a_value_count(template: Any) -> None:
    scope = {"input": {"t": "x" * (MAX_VALUE_BYTES // 2), "u": "x" * (MAX_VALUE_BYTES // 2)}}
    assert render("$( input.t )", scope) == scope["input"]["t"]
    with pytest.raises(ExpressionError, match=r"more than 10 MiB as JSON"):
        render(template, scope)


@pytest.mark.requirement("A26")
@pytest.mark.parametrize(
    "text", ["[a] + [a, a, a, a]", "[[a, a], [a, a], [a]]", "{'x': a, 'y': {'x': a, 'y': [a, a, a]}}"]
)
def test_what_holds_a_value_many_times_is_refused_before_it_is_evaluated(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"may make more than 10 MiB"):
        evaluate(text, {"a": "x" * 5 * MIB})


def test_what_holds_a_large_value_once_is_not() -> None:
    text = "x" * 9 * MIB
    assert evaluate("{'a': size(a) > 3 ? a : a}", {"a": text}) == {"a": text}
    assert MAX_MADE_BYTES > MAX_VALUE_BYTES


def test_a_list_of_outputs_has_the_bound_of_a_value() -> None:
    each = {"name": "each", "forEach": {"items": [1, 2, 3]}, "transform": {"value": "$( input )"}}
    driver = run_steps([each], given="x" * 4 * MIB)
    assert failure(driver, "each") == ("Invalid/TooLarge", "the step's output has more than 10 MiB as JSON")
    assert step(driver.state, "each[2]").phase == "Succeeded"


def test_an_output_that_is_too_large_is_handled_like_any_failure() -> None:
    each = {"name": "each", "forEach": {"items": [1, 2, 3]}, "transform": {"value": "$( input )"}}
    driver = run_steps([each | {"onError": {"action": "Continue"}}, compute("after", 1)], given="x" * 4 * MIB)
    assert step(driver.state, "after").output == 1


def test_the_outputs_of_a_run_have_a_bound_together() -> None:
    steps = [compute(f"s{number}", "$( input )") for number in range(8)]
    driver = run_steps(steps, given="x" * (9 * MIB))
    assert driver.state.terminal is not None and driver.state.terminal.reason == "BudgetExceeded"
    message = "the input and the outputs of the run's steps would have more than 64 MiB together"
    assert failure(driver, "s6") == ("BudgetExceeded/TooLarge", message)
    assert driver.state.held_bytes == 7 * (9 * MIB + 2) <= MAX_RUN_BYTES
