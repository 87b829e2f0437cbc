"""`$( )` in text and values: where a segment ends, what it becomes, and that data is never parsed again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.canonical import canonical_json
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.template import Segment, expressions_in, parse, render, render_text

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", ("plain",)),
        ("", ()),
        ("$( a )", (Segment("a", 0),)),
        ("x $( a )$( b ) y", ("x ", Segment("a", 2), Segment("b", 8), " y")),
        ("$( f((1)) ) )", (Segment("f((1))", 0), " )")),
        ("$( ')' )", (Segment("')'", 0),)),
        (r"$( '\')' )", (Segment(r"'\')'", 0),)),
        ('$( """a")""" )', (Segment('"""a")"""', 0),)),
        ("$( '''it's )''' )", (Segment("'''it's )'''", 0),)),
        (r"$( r'\' + ')' )", (Segment(r"r'\' + ')'", 0),)),
        ("$( 1 // )\n )", (Segment("1 // )", 0),)),
        ("$$( a )", ("$( a )",)),
        ("$$$( a", ("$$( a",)),
        ("$ (a) ${b} {{c}}", ("$ (a) ${b} {{c}}",)),
    ],
)
def test_a_segment_ends_at_its_own_parenthesis(text: str, parts: tuple[str | Segment, ...]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abc $( 1", "the $( at character 5 is not closed"),
        ("$( (1 )", "not closed"),
        ("$( 'a )", "a string in the $( at character 1 is not closed"),
        ("$(  )", "holds no expression"),
        ("$( 1 // )", "not closed"),
    ],
)
def test_what_is_not_closed_is_an_error_with_its_position(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)

    assert message in caught.value.message


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("$( x )", {"b": 1, "a": [True, None]}),
        ("= $( x )", '= {"a":[true,null],"b":1}'),
        ("$( s )", "text"),
        ("<$( s )>", "<text>"),
        ("$( n )", None),
        ("<$( n )>", "<>"),
        ("<$( 1.5 )$( true )>", "<1.5true>"),
        ({"$( s )": ["$( s )", 1, None, {"k": "$( 1 + 1 )"}]}, {"$( s )": ["text", 1, None, {"k": 2}]}),
        (7, 7),
    ],
)
def test_a_whole_segment_keeps_its_type_and_one_in_text_becomes_text(value: Any, rendered: Any) -> None:
    assert render(value, {"x": {"b": 1, "a": [True, None]}, "s": "text", "n": None}) == rendered


def test_text_is_always_text() -> None:
    assert render_text("$( x )", {"x": [1]}) == "[1]"
    assert render_text("$( x )", {"x": None}) == ""


@pytest.mark.requirement("A25")
@pytest.mark.parametrize("payload", ["$( 1 + 1 )", "$(touch /p)", "`id`", "{{7*7}}", "${jndi:x}", "$$("])
def test_what_data_holds_is_never_evaluated(payload: str) -> None:
    assert render("<$( x )>", {"x": payload}) == f"<{payload}>"


@given(TEXT)
def test_text_without_a_segment_is_rendered_as_it_is(text: str) -> None:
    escaped = text.replace("$(", "$$(")

    assert render(escaped, {}) == text


@given(TEXT, TEXT)
def test_data_stands_in_the_text_as_it_is(before: str, data: str) -> None:
    prefix = before.replace("$(", "$$(").rstrip("$") + "|"

    assert render_text(f"{prefix}$( x )", {"x": data}) == before.rstrip("$") + "|" + data


@given(st.text())
def test_no_text_does_worse_than_an_expression_error(text: str) -> None:
    for candidate in (text, f"$({text}", f"$( {text} )"):
        try:
            render(candidate, {})
        except ExpressionError as error:
            assert error.message


@given(st.lists(st.integers(), max_size=5))
def test_data_in_text_is_canonical_json(value: list[int]) -> None:
    value = [item % 2**53 for item in value]

    assert render_text("$( x )", {"x": value}) == canonical_json(value).decode()


def test_expressions_are_found_in_the_order_of_the_text() -> None:
    assert expressions_in({"a": ["$( 1 )", {"b": "x $( 2 )$( 3 )"}], "c": 4}) == ["1", "2", "3"]
