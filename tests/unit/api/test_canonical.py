from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.canonical import canonical_json, digest, too_deep

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_value_keeps_its_meaning(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), JSON, max_size=5), st.randoms())
def test_the_order_of_keys_makes_no_difference(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert digest(dict(items)) == digest(value)


@given(JSON, JSON)
def test_different_bytes_have_different_digests(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (canonical_json(one) == canonical_json(other))


def test_the_digest_of_a_known_value_is_known() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("value", [b"x", {1: 2}, "\ud800", object()])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


def test_not_a_number_becomes_null() -> None:
    assert canonical_json(math.nan) == b"null"


@pytest.mark.parametrize(("levels", "deep"), [(0, False), (64, False), (65, True), (5000, True)])
def test_nesting_is_counted_without_nesting(levels: int, deep: bool) -> None:
    value: Any = 1
    for level in range(levels):
        value = [value, 1] if level % 2 else {"a": 1, "b": value}
    assert too_deep(value) is deep
