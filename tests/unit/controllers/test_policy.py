from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, account, declared

from fairlead.api.reasons import ReadyReason
from fairlead.controllers.plan import Plan
from fairlead.controllers.policy import plan
from fairlead.kube.types import ResourceType


def policy(name: str, *accounts: str, **grants: Any) -> Object:
    return declared("Policy", name, changes={"spec.grants": {"serviceAccounts": list(accounts), **grants}})


def planned(obj: Object, *accounts: Object, others: tuple[Object, ...] = ()) -> Plan:
    return plan(obj, policies=[obj, *others], accounts={found["metadata"]["name"]: found for found in accounts})


def applied(plan: Plan, kind: str) -> list[Object]:
    return [obj for rt, obj in plan.apply if rt.kind == kind]


def deleted(plan: Plan) -> set[tuple[str, str]]:
    return {(doomed.type.kind, doomed.name) for doomed in plan.delete}


UNBOUND = {("RoleBinding", "fairlead-grant-p"), ("Role", "fairlead-grant-p")}


def test_grants_become_one_role_and_one_binding_that_go_with_the_policy() -> None:
    made = planned(policy("p", "b", "a", models=["small"], tools=[{"tool": "tickets", "functions": ["search"]}]))
    (role,), (binding,) = applied(made, "Role"), applied(made, "RoleBinding")
    assert role["metadata"]["name"] == binding["metadata"]["name"] == binding["roleRef"]["name"] == "fairlead-grant-p"
    assert binding["roleRef"]["kind"] == "Role"
    assert [subject["name"] for subject in binding["subjects"]] == ["a", "b"]
    assert {subject["namespace"] for subject in binding["subjects"]} == {"team"}
    assert {tuple(rule["verbs"]) for rule in role["rules"]} == {("invoke",)}
    assert {name for rule in role["rules"] for name in rule["resourceNames"]} == {"small", "tickets.search"}
    for obj in (role, binding):
        (owner,) = obj["metadata"]["ownerReferences"]
        assert owner["uid"] == "uid-of-Policy-p"
        assert owner["controller"] is True


def test_rights_are_written_before_they_are_bound_and_accounts_before_both() -> None:
    kinds = [rt.kind for rt, _ in planned(policy("p", "a", models=["small"])).apply]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding"]


def test_a_missing_account_is_made_without_a_token_and_owned_by_every_policy_that_names_it() -> None:
    made = planned(policy("p", "a"), others=(policy("q", "a", "b"), policy("r", "b")))
    (made_account,) = applied(made, "ServiceAccount")
    assert made_account["automountServiceAccountToken"] is False
    owners = made_account["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["uid-of-Policy-p", "uid-of-Policy-q"]
    assert not any(owner.get("controller") for owner in owners), "it goes with the last of them, not with the first"


def test_an_account_of_ours_is_written_only_when_its_owners_change() -> None:
    ours = account("a", ours=True, owners=("uid-of-Policy-p",))
    assert applied(planned(policy("p", "a"), ours), "ServiceAccount") == []
    shared = planned(policy("p", "a"), ours, others=(policy("q", "a"),))
    assert len(applied(shared, "ServiceAccount")) == 1


def test_an_adopted_account_is_bound_and_left_as_it_is() -> None:
    made = planned(policy("p", "deployer", models=["small"]), account("deployer", adopt=True))
    assert applied(made, "ServiceAccount") == []
    assert applied(made, "RoleBinding")[0]["subjects"][0]["name"] == "deployer"


@pytest.mark.requirement("A55")
@pytest.mark.parametrize(
    ("names", "existing", "reason", "named"),
    [
        (("deployer",), account("deployer"), ReadyReason.ACCOUNT_CONFLICT, "deployer"),
        (("a", "deployer"), account("deployer"), ReadyReason.ACCOUNT_CONFLICT, "deployer"),
        (("default",), account("default", adopt=True), ReadyReason.RESERVED_ACCOUNT, "default"),
        (("fairlead-engine",), account("fairlead-engine", ours=True), ReadyReason.RESERVED_ACCOUNT, "fairlead-engine"),
        (("fairlead-none", "a"), account("x"), ReadyReason.RESERVED_ACCOUNT, "fairlead-none"),
    ],
)
def test_an_account_that_exists_for_something_else_is_never_adopted_and_nothing_is_bound(
    names: tuple[str, ...], existing: Object, reason: ReadyReason, named: str
) -> None:
    made = planned(policy("p", *names, models=["small"]), existing)
    assert made.verdict is not None
    assert (made.verdict.ready, made.verdict.reason, made.verdict.stalled) == (False, reason, True)
    assert named in made.verdict.message
    assert made.apply == ()
    assert made.again_seconds is not None, "an annotation may cure it, and nobody tells"
    assert deleted(made) == UNBOUND


def test_a_policy_without_grants_binds_nothing_and_unbinds_what_was() -> None:
    made = planned(declared("Policy", "p", changes={"spec": {}}))
    assert made.verdict is not None
    assert made.verdict.ready is True
    assert deleted(made) == UNBOUND


def test_a_malformed_policy_grants_nothing() -> None:
    made = planned(declared("Policy", "p", changes={"spec.grants.models": "all of them"}))
    assert made.verdict is not None
    assert made.verdict.reason == ReadyReason.INVALID_SPEC
    assert made.apply == ()
    assert deleted(made) == UNBOUND


def test_an_account_that_no_policy_names_any_more_goes_and_a_shared_one_stays() -> None:
    dropped = account("dropped", ours=True, owners=("uid-of-Policy-p",))
    shared = account("shared", ours=True, owners=("uid-of-Policy-p", "uid-of-Policy-q"))
    foreign = account("foreign", owners=("uid-of-Policy-p",))
    made = planned(policy("p", "a"), dropped, shared, foreign, others=(policy("q", "shared"),))
    assert deleted(made) == {("ServiceAccount", "dropped")}
    assert [doomed.uid for doomed in made.delete] == ["uid-of-dropped"]
    kept = next(obj for obj in applied(made, "ServiceAccount") if obj["metadata"]["name"] == "shared")
    assert [owner["uid"] for owner in kept["metadata"]["ownerReferences"]] == ["uid-of-Policy-q"]


def test_every_object_is_typed_and_in_the_policys_namespace() -> None:
    for rt, obj in planned(policy("p", "a", models=["small"])).apply:
        assert isinstance(rt, ResourceType)
        assert obj["metadata"]["namespace"] == "team"


def test_a_policy_tells_how_many_rules_it_has_and_whether_they_decide() -> None:
    rules = {"calls": [{"name": "no", "when": "true"}], "budgets": {"run": {"tokens": 1, "toolCalls": 1}}}
    for mode, told in (("Enforce", "grants nothing; 3 rules"), ("Audit", "3 rules in Audit mode: nothing is denied")):
        verdict = planned(declared("Policy", "p", changes={"spec": {"mode": mode, "rules": rules}})).verdict
        assert verdict is not None
        assert verdict.ready and told in verdict.message


def test_a_rule_that_cannot_be_right_grants_nothing_and_is_named() -> None:
    wrong = {"calls": [{"name": "no", "when": "tool == 'x'"}]}
    obj = declared("Policy", "p", changes={"spec.rules": wrong, "spec.grants.serviceAccounts": ["a"]})
    made = planned(obj)
    assert made.verdict is not None
    assert made.verdict.reason == ReadyReason.INVALID_SPEC
    assert "spec.rules.calls[0].when: there is no 'tool'" in made.verdict.message
    assert deleted(made) == UNBOUND and made.apply == ()
