"""Where calls may go, and what containers may be: `rules.egress` and `rules.containers` of Policies. Pure.

Several Policies narrow each other: a host or a RuntimeClass must be in every list, a resource within every bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fairlead.api.container import ContainerResources
from fairlead.api.policy import ContainerRules, MaxResources, Policy
from fairlead.api.quantity import quantity
from fairlead.flow.calls import Call, CallKind
from fairlead.policy.decision import Breach


def egress_rules(host: str, policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield the `rules.egress` that a host is not in; "" is that of a server of ours, which is nowhere outside."""
    for policy in policies if host else ():
        egress = policy.spec.rules.egress if policy.spec.rules else None
        if egress is not None and host not in egress.hosts:
            yield _breach(policy, "egress.hosts", f"{host} is not in the list")


def closed_to_all(host: str, policies: Iterable[Policy]) -> Breach | None:
    """Return which enforced `rules.egress` keeps a host from every run of the namespace, whatever its Workflow."""
    everybodys = [policy for policy in policies if policy.spec.applies_to is None]
    return next((breach for breach in egress_rules(host, everybodys) if breach.enforced), None)


def container_rules(call: Call, policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield what a container call breaks of `rules.containers`."""
    for policy in policies if call.kind is CallKind.CONTAINER else ():
        rules = policy.spec.rules.containers if policy.spec.rules else None
        if rules is not None:
            yield from _runtime(call, policy, rules)
            yield from _resources(call, policy, rules.max_resources or MaxResources())


def _runtime(call: Call, policy: Policy, rules: ContainerRules) -> Iterator[Breach]:
    named, allowed = call.request.get("runtimeClassName"), rules.runtime_class_names
    if allowed is not None and named not in allowed:
        what = f"{named} is not" if named else "the step names none"
        yield _breach(policy, "containers.runtimeClassNames", f"{what}; allowed: {', '.join(allowed) or 'none'}")


def _resources(call: Call, policy: Policy, most: MaxResources) -> Iterator[Breach]:
    asked = ContainerResources.model_validate(call.request.get("resources") or {})
    for name, wants, bound in (("cpu", asked.cpu, most.cpu), ("memory", asked.memory, most.memory)):
        if bound is not None and quantity(wants) > quantity(bound):
            yield _breach(policy, f"containers.maxResources.{name}", f"{wants} is more than {bound}")


def _breach(policy: Policy, rule: str, message: str) -> Breach:
    return Breach(policy.metadata.name, rule, message, enforced=policy.spec.mode != "Audit")
