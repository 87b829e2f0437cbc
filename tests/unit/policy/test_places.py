"""`rules.egress` and `rules.containers`: several Policies narrow each other, and Audit mode forbids nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.policy.test_rules import SEARCH, decided, policy

from fairlead.api.quantity import quantity
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import Path
from fairlead.policy.places import container_rules, egress_rules

HOST = "mcp.example.com:443"


def container(**request: Any) -> Call:
    return Call(CallId(Path("work"), 1, CallIndex()), CallKind.CONTAINER, "i@sha256:" + "0" * 64, request=request)


def said(call: Call, *rules: dict[str, Any], mode: str | None = None) -> list[str]:
    more = {"mode": mode} if mode else {}
    policies = [policy(f"p{number}", containers=rule, **more) for number, rule in enumerate(rules)]
    return [str(breach) for breach in container_rules(call, policies) if breach.enforced]


def test_a_call_to_a_host_that_a_policy_does_not_list_is_denied_and_named() -> None:
    listed, other = policy("a", egress={"hosts": [HOST]}), policy("b", egress={"hosts": ["b.example.com:443"]})
    assert decided(SEARCH, listed, host=HOST).verdict == "Allow"
    decision = decided(SEARCH, listed, other, host=HOST)
    assert (decision.verdict, decision.reason) == ("Deny", "PolicyDenied")
    assert decision.message == f"Policy b, rule egress.hosts: {HOST} is not in the list"


@pytest.mark.requirement("A27")
@pytest.mark.parametrize("host", ["mcp.example.com:444", "mcp.example.com.evil.com:443", "evil-mcp.example.com:443"])
def test_hosts_are_compared_whole(host: str) -> None:
    assert decided(SEARCH, policy("p", egress={"hosts": [HOST]}), host=host).verdict == "Deny"


def test_a_server_of_ours_is_nowhere_outside() -> None:
    assert list(egress_rules("", [policy("p", egress={"hosts": []})])) == []
    assert decided(SEARCH, policy("p", egress={"hosts": []}), host=HOST).verdict == "Deny"


def test_in_audit_mode_it_is_told_and_happens() -> None:
    decision = decided(SEARCH, policy("p", mode="Audit", egress={"hosts": []}), host=HOST)
    assert decision.verdict == "Allow"
    assert said(container(), {"runtimeClassNames": ["gvisor"]}, mode="Audit") == []


BOUND = {"maxResources": {"cpu": "1", "memory": "1Gi"}}
CONTAINERS: dict[str, tuple[Call, tuple[dict[str, Any], ...], list[str]]] = {
    "one of the list": (container(runtimeClassName="gvisor"), ({"runtimeClassNames": ["kata", "gvisor"]},), []),
    "another": (
        container(runtimeClassName="runc"),
        ({"runtimeClassNames": ["gvisor"]},),
        ["Policy p0, rule containers.runtimeClassNames: runc is not; allowed: gvisor"],
    ),
    "none": (
        container(),
        ({"runtimeClassNames": ["gvisor"]},),
        ["Policy p0, rule containers.runtimeClassNames: the step names none; allowed: gvisor"],
    ),
    "not in both lists": (
        container(runtimeClassName="kata"),
        ({"runtimeClassNames": ["kata"]}, {"runtimeClassNames": ["gvisor"]}),
        ["Policy p1, rule containers.runtimeClassNames: kata is not; allowed: gvisor"],
    ),
    "as much as there may be": (container(resources={"cpu": "1000m", "memory": "1024Mi"}), (BOUND,), []),
    "too much": (
        container(resources={"cpu": "1001m", "memory": "2G"}),
        (BOUND,),
        [
            "Policy p0, rule containers.maxResources.cpu: 1001m is more than 1",
            "Policy p0, rule containers.maxResources.memory: 2G is more than 1Gi",
        ],
    ),
    "the default counts": (
        container(),
        ({"maxResources": {"cpu": "100m"}},),
        ["Policy p0, rule containers.maxResources.cpu: 500m is more than 100m"],
    ),
    "no rule": (container(resources={"cpu": "64"}), ({},), []),
}


@pytest.mark.parametrize(("call", "rules", "expected"), CONTAINERS.values(), ids=CONTAINERS)
def test_what_a_container_may_be(call: Call, rules: tuple[dict[str, Any], ...], expected: list[str]) -> None:
    assert said(call, *rules) == expected


classes = st.lists(st.sampled_from(["gvisor", "kata", "runc"]), max_size=3)
some = st.fixed_dictionaries(
    {},
    optional={
        "runtimeClassNames": classes,
        "maxResources": st.fixed_dictionaries({"cpu": st.sampled_from(["100m", "1", "2"])}),
    },
)


@pytest.mark.requirement("P1")
@given(st.sampled_from([None, "gvisor", "kata"]), st.sampled_from(["50m", "1", "4"]), st.lists(some, max_size=3), some)
def test_another_rule_never_lets_a_container_run(
    name: str | None, cpu: str, rules: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    call = container(resources={"cpu": cpu}, **({"runtimeClassName": name} if name else {}))
    assert set(said(call, *rules)) <= set(said(call, *rules, more))
    assert said(call, *rules, *rules)[: len(said(call, *rules))] == said(call, *rules)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", "0.5"),
        ("2", "2"),
        ("64Mi", "67108864"),
        ("1e3", "1000"),
        ("1E", "1E18"),
        ("0.5Gi", "536870912"),
        ("3k", "3000"),
    ],
)
def test_quantities_are_read_as_kubernetes_does(text: str, number: str) -> None:
    assert quantity(text) == quantity(number) if "E" not in number else quantity(text) == 10**18


def test_what_is_no_quantity_is_told() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity("5Kii")
