"""Where data may go: what holds something untrusted and something confidential does not leave by itself. Pure.

Whoever wrote the untrusted part may have said what to do with the confidential one. The rule looks at the labels of
what led to a call (flow/labels.py) and at the contract of the function, never at any content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead.api.policy import CallRule, Policy
from fairlead.api.tool import Function
from fairlead.flow.labels import Label, leaves
from fairlead.policy.decision import Breach, Requirement

RULE = "dataFlow"


def forbidden_before(policies: Iterable[Policy], found: str = "") -> list[Breach]:
    """Return the rules that accept no run of a Workflow in which data may leave so; `found` says where."""
    return [
        Breach(policy.metadata.name, f"{RULE}.static", found, enforced=policy.spec.mode != "Audit")
        for policy in policies
        if policy.spec.rules is not None
        and policy.spec.rules.data_flow is not None
        and policy.spec.rules.data_flow.static == "Enforce"
    ]


def flow_breaches(label: Label, function: Function | None, policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield the `rules.dataFlow` that forbid a call; of those that ask people only in Audit mode."""
    if not leaves(label, function):
        return
    for policy in policies:
        flow = policy.spec.rules.data_flow if policy.spec.rules is not None else None
        audited = policy.spec.mode == "Audit"
        if flow is not None and (flow.untrusted_to_external == "Deny" or audited):
            yield Breach(policy.metadata.name, RULE, _words(label, function), enforced=not audited)


def flow_approvals(label: Label, function: Function | None, policies: Iterable[Policy]) -> Iterator[Requirement]:
    """Yield the `rules.dataFlow` that let such a call happen only when people approve it."""
    if not leaves(label, function):
        return
    for policy in policies:
        flow = policy.spec.rules.data_flow if policy.spec.rules is not None else None
        if flow is not None and flow.approval is not None and policy.spec.mode != "Audit":
            words = _words(label, function)
            rule = CallRule(name=RULE, when="true", then="RequireApproval", approval=flow.approval, message=words)
            yield Requirement(policy.metadata.name, rule, where="dataFlow")


def _words(label: Label, function: Function | None) -> str:
    how = "reaches outside" if function is not None and function.reach != "Internal" else "cannot be undone"
    return f"what led to the call is {label}, and it {how}"
