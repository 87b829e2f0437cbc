"""Grants: how a Policy's `grants` become RBAC rules, and what such rules allow.

On a cluster the operator puts `rules_for` into a Role and the API server evaluates it. Local mode has no API server:
`granted` evaluates the very same rules, with RBAC's string matching, so that both say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fairlead.api import GROUP
from fairlead.api.policy import Grants, Policy
from fairlead.policy.permission import Permission

Rule = Mapping[str, Sequence[str]]


def rules_for(grants: Grants) -> list[dict[str, list[str]]]:
    """Return the rules of the Role: one per resource, names sorted, so that equal grants give equal Roles.

    A resource without names gets no rule at all: in RBAC an empty `resourceNames` means every object.
    """
    names: dict[str, set[str]] = {
        "tools": {grant.tool for grant in grants.tools if grant.functions is None},
        "toolfunctions": {f"{grant.tool}.{name}" for grant in grants.tools for name in grant.functions or ()},
        "models": set(grants.models),
        "workflows": set(grants.workflows),
    }
    return [
        {"apiGroups": [GROUP], "resources": [resource], "resourceNames": sorted(allowed), "verbs": ["invoke"]}
        for resource, allowed in names.items()
        if allowed
    ]


def granted(policies: Iterable[Policy], account: str, permission: Permission) -> bool:
    """Tell whether any of these Policies grants the permission to the ServiceAccount. Without a grant: no."""
    return any(
        allows(rule, permission)
        for policy in policies
        if policy.spec.grants is not None and account in policy.spec.grants.service_accounts
        for rule in rules_for(policy.spec.grants)
    )


def allows(rule: Rule, permission: Permission) -> bool:
    """Tell whether an RBAC rule covers the permission, as the API server matches: `*` or equal, no patterns.

    A rule without `resourceNames` covers every name.
    """
    names = rule.get("resourceNames", ())
    return (
        _covers(rule["apiGroups"], GROUP)
        and _covers(rule["resources"], permission.resource)
        and _covers(rule["verbs"], permission.verb)
        and (not names or permission.name in names)
    )


def _covers(allowed: Sequence[str], value: str) -> bool:
    return value in allowed or "*" in allowed
