"""Grants: the RBAC rules that they become, and what these rules allow."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.policy import Grants, Policy
from fairlead.policy.grants import allows, granted, rules_for
from fairlead.policy.permission import Permission, function_permission

EVERYTHING = {
    "serviceAccounts": ["triage"],
    "tools": [{"tool": "tickets", "functions": ["search", "create"]}, {"tool": "wiki"}],
    "models": ["small", "embedder"],
    "workflows": ["researcher"],
}


def grants(**parts: Any) -> Grants:
    return Grants.model_validate({"serviceAccounts": ["triage"]} | parts)


def policy(*parts: dict[str, Any] | None) -> list[Policy]:
    return [
        Policy.model_validate({"metadata": {"name": f"p{n}"}, "spec": {"grants": part} if part else {}})
        for n, part in enumerate(parts)
    ]


def rule(resource: str, *names: str) -> dict[str, list[str]]:
    return {
        "apiGroups": ["fairlead.dev"],
        "resources": [resource],
        "resourceNames": list(names),
        "verbs": ["invoke"],
    }


def test_grants_become_one_rule_for_each_resource() -> None:
    assert rules_for(Grants.model_validate(EVERYTHING)) == [
        rule("tools", "wiki"),
        rule("toolfunctions", "tickets.create", "tickets.search"),
        rule("models", "embedder", "small"),
        rule("workflows", "researcher"),
    ]


@given(st.sets(st.sampled_from(["tools", "models", "workflows"])))
def test_a_resource_that_is_not_granted_has_no_rule(parts: set[str]) -> None:
    """An empty resourceNames would mean every object."""
    rules = rules_for(grants(**{part: EVERYTHING[part] for part in parts}))
    assert all(found["resourceNames"] for found in rules)
    resources = {resource for found in rules for resource in found["resources"]}
    assert resources == {r for part in parts for r in (["tools", "toolfunctions"] if part == "tools" else [part])}


@pytest.mark.parametrize(
    ("permission", "expected"),
    [
        (Permission("toolfunctions", "tickets.search"), True),
        (Permission("toolfunctions", "tickets.remove"), False),
        (Permission("tools", "tickets"), False),
        (Permission("tools", "wiki"), True),
        (Permission("toolfunctions", "wiki.read"), False),
        (Permission("models", "small"), True),
        (Permission("models", "smal"), False),
        (Permission("models", "small2"), False),
        (Permission("models", "researcher"), False),
        (Permission("workflows", "researcher"), True),
        (Permission("models", "small", verb="read"), False),
    ],
)
def test_a_permission_is_matched_as_rbac_does(permission: Permission, expected: bool) -> None:
    assert granted(policy(EVERYTHING), "triage", permission) is expected
    assert granted(policy(EVERYTHING), "other", permission) is False


def test_a_whole_tool_covers_its_functions() -> None:
    needed = function_permission("wiki", "read")
    assert any(granted(policy(EVERYTHING), "triage", permission) for permission in needed)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (rule("models", "small"), True),
        (rule("models"), True),
        (rule("*", "small"), True),
        (rule("models", "small") | {"verbs": ["*"]}, True),
        (rule("models", "small") | {"apiGroups": ["*"]}, True),
        (rule("models", "small") | {"apiGroups": [""]}, False),
        (rule("models", "*"), False),
        (rule("models", "sma*"), False),
        (rule("tools", "small"), False),
    ],
)
def test_only_equal_words_and_the_star_match(found: dict[str, list[str]], expected: bool) -> None:
    """RBAC knows no star among names: an object would have to be called so."""
    assert allows(found, Permission("models", "small")) is expected


names = st.sampled_from(["a", "b", "c"])
some_grants = st.fixed_dictionaries(
    {"serviceAccounts": st.lists(st.sampled_from(["triage", "other"]), min_size=1, unique=True)},
    optional={
        "tools": st.lists(
            st.fixed_dictionaries({"tool": names}, optional={"functions": st.lists(names, min_size=1, max_size=3)}),
            max_size=3,
        ),
        "models": st.lists(names, max_size=3),
        "workflows": st.lists(names, max_size=3),
    },
)
permissions = st.builds(
    Permission,
    resource=st.sampled_from(["tools", "toolfunctions", "models", "workflows"]),
    name=st.sampled_from(["a", "b", "c", "a.a", "a.b", "b.c"]),
)


@pytest.mark.requirement("P6")
@given(st.lists(some_grants, max_size=4), permissions, st.randoms())
def test_the_order_and_number_of_equal_policies_do_not_matter(
    parts: list[dict[str, Any]], permission: Permission, order: random.Random
) -> None:
    shuffled = [*parts, *parts]
    order.shuffle(shuffled)
    assert granted(policy(*parts), "triage", permission) == granted(policy(*shuffled), "triage", permission)


@pytest.mark.requirement("P6")
@given(st.lists(some_grants, max_size=3), some_grants, permissions)
def test_one_more_grant_never_takes_away(
    parts: list[dict[str, Any]], more: dict[str, Any], permission: Permission
) -> None:
    assert not granted(policy(*parts), "triage", permission) or granted(policy(*parts, more), "triage", permission)


@given(
    st.lists(some_grants.map(lambda part: part | {"serviceAccounts": ["other"]}) | st.none(), max_size=3), permissions
)
def test_nothing_is_allowed_that_nobody_granted(parts: list[dict[str, Any] | None], permission: Permission) -> None:
    assert not granted(policy(*parts), "triage", permission)


@given(some_grants)
def test_equal_grants_give_equal_roles(part: dict[str, Any]) -> None:
    turned = {key: list(reversed(value)) for key, value in part.items()}
    assert rules_for(Grants.model_validate(part)) == rules_for(Grants.model_validate(turned))
