"""ClusterPolicies: looked at, and counted where they bind. Their copies are part of each Engine's status."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.api.clusterpolicy import ClusterPolicy
from fairlead.api.reasons import ReadyReason
from fairlead.controllers.plan import Object, Plan, Verdict, invalid, listed, parse
from fairlead.errors import InvalidSpec
from fairlead.policy.clusterwide import as_policy, selects
from fairlead.policy.rules import problems


def plan(obj: Object, *, namespaces: Mapping[str, Mapping[str, str]]) -> Plan:
    """Return what a ClusterPolicy's status says.

    Args:
        obj: the ClusterPolicy.
        namespaces: the labels of each namespace that has an Engine.
    """
    try:
        policy = parse(ClusterPolicy, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error))
    count = sum(selects(policy.spec.namespace_selector, labels) for labels in namespaces.values())
    status = {"namespaces": count}
    if wrong := problems(as_policy(policy)):
        message = listed([f"{finding.path}: {finding.message}" for finding in wrong])
        return Plan(verdict=Verdict(False, ReadyReason.INVALID_SPEC, message, stalled=True), status=status)
    mode = " in Audit mode: nothing is denied" if policy.spec.mode == "Audit" else ""
    return Plan(verdict=Verdict(True, ReadyReason.READY, f"binds {count} namespaces{mode}"), status=status)
