"""ClusterPolicies: whom they select, and that nothing in a namespace weakens them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from tests.unit.policy.test_decide import SEARCH
from tests.unit.policy.test_rules import bound, calls, denying, labels, numbered, rates, rules, usages

from fairlead.api.clusterpolicy import ClusterPolicy, NamespaceSelector
from fairlead.api.policy import Policy
from fairlead.flow.calls import Call
from fairlead.flow.labels import Label
from fairlead.policy.clusterwide import as_policy, copies, from_copy, selects
from fairlead.policy.decide import decide
from fairlead.policy.decision import RunUsage

SELECTORS: dict[str, tuple[dict[str, Any] | None, dict[str, str], bool]] = {
    "no selector": (None, {}, True),
    "an empty one": ({}, {"a": "b"}, True),
    "a label": ({"matchLabels": {"tier": "prod"}}, {"tier": "prod", "x": "y"}, True),
    "another value": ({"matchLabels": {"tier": "prod"}}, {"tier": "dev"}, False),
    "no such label": ({"matchLabels": {"tier": "prod"}}, {}, False),
    "one of": ({"matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]}, {"t": "b"}, True),
    "none of": ({"matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]}, {}, False),
    "not one of": ({"matchExpressions": [{"key": "t", "operator": "NotIn", "values": ["a"]}]}, {"t": "a"}, False),
    "not there is not one of": ({"matchExpressions": [{"key": "t", "operator": "NotIn", "values": ["a"]}]}, {}, True),
    "there": ({"matchExpressions": [{"key": "t", "operator": "Exists"}]}, {"t": ""}, True),
    "not there": ({"matchExpressions": [{"key": "t", "operator": "DoesNotExist"}]}, {"t": ""}, False),
    "both must hold": (
        {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "t", "operator": "Exists"}]},
        {"a": "1"},
        False,
    ),
}


@pytest.mark.parametrize(("selector", "found", "expected"), SELECTORS.values(), ids=SELECTORS)
def test_a_selector_selects_as_those_of_kubernetes_do(
    selector: dict[str, Any] | None, found: dict[str, str], expected: bool
) -> None:
    model = NamespaceSelector.model_validate(selector) if selector is not None else None
    assert selects(model, found) is expected


def obj(name: str = "base", *, selector: Any = None, **spec: Any) -> dict[str, Any]:
    spec = {"rules": {"pins": "Required"}} | spec | ({"namespaceSelector": selector} if selector is not None else {})
    return {"metadata": {"name": name, "uid": f"u-{name}", "generation": 3}, "spec": spec}


def test_a_namespace_gets_copies_of_those_that_select_it_in_one_order() -> None:
    objects = [obj("z"), obj("b", selector={"matchLabels": {"tier": "prod"}}), obj("a")]
    assert [copy["name"] for copy in copies(objects, {"tier": "dev"})] == ["a", "z"]
    (copy,) = copies([objects[1]], {"tier": "prod"})
    assert copy == {"name": "b", "uid": "u-b", "generation": 3, "spec": {"rules": {"pins": "Required"}}}


def test_who_cannot_be_read_binds_everybody() -> None:
    assert copies([obj(selector={"matchWords": 1})], {}) != []


def test_a_copy_that_is_not_understood_denies_every_call() -> None:
    policy = from_copy({"name": "new", "uid": "u", "generation": 1, "spec": {"rules": {"later": 1}}})
    assert policy is not None
    decision = decide(SEARCH, bound(SEARCH, policy))
    assert decision.verdict == "Deny"
    assert decision.message.startswith("ClusterPolicy new, rule unreadable")


def test_its_denial_says_its_kind() -> None:
    policy = cluster(denying("true"))
    decision = decide(SEARCH, bound(SEARCH, policy))
    assert (decision.message, decision.policy) == ("ClusterPolicy p, rule no: not here", "ClusterPolicy/p")


def test_until_somebody_said_which_ones_bind_a_call_waits() -> None:
    decision = decide(SEARCH, replace(bound(SEARCH), policies_known=False))
    assert (decision.verdict, decision.reason, decision.stage) == ("Wait", "PoliciesUnknown", 6)


def cluster(policy: Policy) -> Policy:
    spec = policy.spec.model_dump(by_alias=True, exclude_unset=True)
    found = ClusterPolicy.model_validate({"metadata": {"name": policy.metadata.name}, "spec": spec})
    return as_policy(found)


@given(calls, numbered, rules, usages, labels, rates)
@pytest.mark.requirement("A14", "P1")
def test_nothing_that_a_namespace_declares_turns_its_deny_into_an_allow(
    call: Call, policies: list[Policy], more: dict[str, Any], usage: RunUsage, label: Label, rate: dict[str, int]
) -> None:
    above = cluster(Policy.model_validate({"metadata": {"name": "above"}, "spec": {"rules": more}}))
    changes = {"usage": usage, "label": label, "rates": rate}
    alone = decide(call, bound(call, above, **changes))
    with_others = decide(call, bound(call, above, *policies, **changes))
    assert not (alone.verdict == "Deny" and with_others.verdict == "Allow")
    twin = Policy.model_validate({"metadata": {"name": "ClusterPolicy/above"}, "spec": {"rules": more}})
    assert decide(call, bound(call, twin, *policies, **changes)) == with_others, "it is held like any other"
