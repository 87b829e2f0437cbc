"""Policies: grants become one Role and one RoleBinding, for accounts that are made when they are missing.

All or nothing: if one of the accounts must not be granted anything, nothing is bound and what was bound goes.
An account that the operator made has one non-controller owner reference per Policy that names it, so it goes with the
last of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.api.policy import Grants, Policy
from fairlead.api.reasons import ReadyReason
from fairlead.controllers.children import MANAGED_BY, is_reserved, metadata, owner
from fairlead.controllers.plan import Doomed, Object, Plan, Typed, Verdict, invalid, listed, parse
from fairlead.errors import InvalidSpec
from fairlead.kube.types import POLICIES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS
from fairlead.policy.grants import rules_for
from fairlead.policy.rules import problems

ADOPT = "fairlead.dev/adopt"
CONFLICT_AGAIN_SECONDS = 10.0
LABELS = {MANAGED_BY: "fairlead", "app.kubernetes.io/part-of": "fairlead"}


def grant_name(policy: str) -> str:
    """Return the name of a Policy's Role and RoleBinding."""
    return f"fairlead-grant-{policy}"


def plan(obj: Object, *, policies: Iterable[Object], accounts: Mapping[str, Object]) -> Plan:
    """Return what a Policy's grants need.

    Args:
        obj: the Policy.
        policies: every Policy of the namespace, this one included.
        accounts: every ServiceAccount of the namespace by name.
    """
    name, namespace = grant_name(obj["metadata"]["name"]), obj["metadata"]["namespace"]
    unbound = (Doomed(ROLE_BINDINGS, name, namespace), Doomed(ROLES, name, namespace))
    try:
        policy = parse(Policy, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error), delete=unbound)
    grants, wrong = policy.spec.grants, problems(policy)
    if wrong:  # what was to be granted under rules is not granted without them
        message = listed([f"{finding.path}: {finding.message}" for finding in wrong])
        return Plan(verdict=Verdict(False, ReadyReason.INVALID_SPEC, message, stalled=True), delete=unbound)
    named_by = _owners(policies)
    apply, delete = _released(obj, grants, named_by, accounts)
    if grants is None:
        verdict = Verdict(True, ReadyReason.READY, f"grants nothing{_told(policy)}")
        return Plan(verdict=verdict, apply=apply, delete=(*unbound, *delete))
    if problem := _problem(grants, accounts):
        # An annotation on the account is no event that the operator sees.
        return Plan(verdict=problem, apply=apply, delete=(*unbound, *delete), again_seconds=CONFLICT_AGAIN_SECONDS)
    made = tuple(
        (SERVICE_ACCOUNTS, _account(obj, name, named_by[name]))
        for name in sorted(grants.service_accounts)
        if not _stands(accounts.get(name), named_by[name])
    )
    names = ", ".join(sorted(grants.service_accounts))
    rules = rules_for(grants)
    count = sum(len(rule["resourceNames"]) for rule in rules)
    return Plan(
        verdict=Verdict(True, ReadyReason.READY, f"{count} grants to {names}{_told(policy)}"),
        apply=(*apply, *made, *_role(obj, grants, rules)),
        delete=delete,
    )


def _told(policy: Policy) -> str:
    rules = policy.spec.rules
    if rules is None:
        return ""
    parts = (rules.budgets.run, rules.budgets.window) if rules.budgets else ()
    budgets = sum(len(part.model_fields_set - {"period_seconds"}) for part in parts if part is not None)
    count = len(rules.calls) + len(rules.limits) + budgets
    return f"; {count} rules" + (" in Audit mode: nothing is denied" if policy.spec.mode == "Audit" else "")


def _problem(grants: Grants, accounts: Mapping[str, Object]) -> Verdict | None:
    """Return why these accounts must not be granted anything, None if they may."""
    reserved = sorted(name for name in grants.service_accounts if is_reserved(name))
    if reserved:
        message = (
            f"{', '.join(reserved)}: never granted anything, so nothing of this Policy is bound; name another account"
        )
        return Verdict(False, ReadyReason.RESERVED_ACCOUNT, message, stalled=True)
    taken = sorted(
        name
        for name in grants.service_accounts
        if name in accounts
        and not _is_ours(accounts[name])
        and (accounts[name]["metadata"].get("annotations") or {}).get(ADOPT) != "true"
    )
    if taken:
        message = (
            f"{', '.join(taken)}: exists for something else, so nothing of this Policy is bound; "
            f'name another account, or annotate it with {ADOPT}: "true"'
        )
        return Verdict(False, ReadyReason.ACCOUNT_CONFLICT, message, stalled=True)
    return None


def _role(obj: Object, grants: Grants, rules: list[dict[str, list[str]]]) -> tuple[Typed, ...]:
    name, namespace = grant_name(obj["metadata"]["name"]), obj["metadata"]["namespace"]
    head = metadata(name, namespace, labels=LABELS, owners=[owner(POLICIES, obj)])
    subjects = [
        {"kind": "ServiceAccount", "name": account, "namespace": namespace}
        for account in sorted(grants.service_accounts)
    ]
    role_ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    return (
        (ROLES, {"metadata": head, "rules": rules}),
        (ROLE_BINDINGS, {"metadata": head, "roleRef": role_ref, "subjects": subjects}),
    )


def _account(obj: Object, name: str, owners: list[Object]) -> Object:
    head = metadata(name, obj["metadata"]["namespace"], labels=LABELS, owners=owners)
    return {"metadata": head, "automountServiceAccountToken": False}


def _released(
    obj: Object, grants: Grants | None, named_by: Mapping[str, list[Object]], accounts: Mapping[str, Object]
) -> tuple[tuple[Typed, ...], tuple[Doomed, ...]]:
    """Return the accounts that this Policy once named: those that others still name, and those that nobody does."""
    named = set(grants.service_accounts) if grants is not None else set()
    apply, delete = [], []
    for name, account in sorted(accounts.items()):
        owners = {reference["uid"] for reference in account["metadata"].get("ownerReferences", [])}
        if name in named or not _is_ours(account) or obj["metadata"]["uid"] not in owners:
            continue
        if name in named_by:
            apply.append((SERVICE_ACCOUNTS, _account(obj, name, named_by[name])))
        else:
            found = account["metadata"]
            delete.append(Doomed(SERVICE_ACCOUNTS, name, found["namespace"], found["uid"]))
    return tuple(apply), tuple(delete)


def _owners(policies: Iterable[Object]) -> dict[str, list[Object]]:
    """Return for each account the references to the Policies that name it."""
    named_by: dict[str, list[Object]] = {}
    for policy in sorted(policies, key=lambda found: str(found["metadata"]["name"])):
        grants = policy.get("spec", {}).get("grants") or {}
        for account in grants.get("serviceAccounts", []):
            named_by.setdefault(account, []).append(owner(POLICIES, policy, controller=False))
    return named_by


def _is_ours(account: Object) -> bool:
    name, labels = account["metadata"]["name"], account["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY) == "fairlead" and not is_reserved(name)


def _stands(account: Object | None, owners: list[Object]) -> bool:
    """Tell whether an account needs nothing: ours with the right owners, or adopted and left as it is."""
    if account is None:
        return False
    if not _is_ours(account):
        return True
    standing = {reference["uid"] for reference in account["metadata"].get("ownerReferences", [])}
    return standing == {reference["uid"] for reference in owners}
