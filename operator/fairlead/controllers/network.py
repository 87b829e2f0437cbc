"""`NetworkIsolation`: are the pods of tools, models and steps really locked in? Pure: from what stands in the cluster.

Two things may be wrong. The network may not enforce NetworkPolicies at all: then the container that runs first in each
of our pods (`isolation.py`) finds the way out open, and the pod does not start. Or somebody else's NetworkPolicy
selects our pods as well: they add up, so it opens what ours close, also later, for pods that run already. Or somebody
has changed ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairlead.api.reasons import NetworkReason
from fairlead.controllers.children import COMPONENT, MANAGED_BY, OBJECT_NAME
from fairlead.controllers.plan import Object, Said, listed

STEP_LABELS = {MANAGED_BY: "fairlead", "app.kubernetes.io/part-of": "fairlead", COMPONENT: "step"}
GUARD = "isolation"
"""The container that runs before a server."""


def isolation(
    policies: Iterable[Object], deployments: Sequence[Object], pods: Iterable[Object], *, ours: Mapping[str, Object]
) -> Said:
    """Return what is known of the network around a namespace's pods.

    Args:
        policies: the namespace's NetworkPolicies.
        deployments: those of tools and models.
        pods: of those that are not available.
        ours: the specs of the NetworkPolicies that Fairlead makes, by name; `ports` None of a rule stands for any.
    """
    groups = {"steps": STEP_LABELS} | {_title(obj): _labels(obj) for obj in deployments}
    widened = [
        f"NetworkPolicy {name} {what}"
        for name, spec in ((policy["metadata"]["name"], policy["spec"]) for policy in policies)
        if (what := _changed(spec, ours[name]) if name in ours else _widens(spec, groups))
    ]
    if widened:
        return Said("NetworkIsolation", False, NetworkReason.WIDENED_BY_POLICY, listed(widened))
    for pod in pods:
        if _stays_open(pod):
            message = f"pod {pod['metadata']['name']} found its way out open: the network does not enforce policies"
            return Said("NetworkIsolation", False, NetworkReason.NOT_ENFORCED, message)
    for obj in deployments:
        if obj.get("status", {}).get("availableReplicas") and _guards(obj):
            message = f"the pod of {_title(obj)} started when the network had locked it in"
            return Said("NetworkIsolation", True, NetworkReason.VERIFIED, message)
    return Said("NetworkIsolation", None, NetworkReason.UNTRIED, "no pod has tried its way out yet")


def _changed(spec: Object, planned: Object) -> str:
    return "" if planned in (spec, _at_any_port(spec)) else "is not as Fairlead made it"


def _at_any_port(spec: Object) -> Object:
    return {**spec, "ingress": [{**rule, "ports": None} for rule in spec.get("ingress") or ()]}


def _widens(spec: Object, groups: Mapping[str, Mapping[str, str]]) -> str:
    """Return what somebody else's NetworkPolicy opens for pods of ours, "" if nothing."""
    what, found = _opens(spec), [name for name, labels in groups.items() if _selects(spec, labels)]
    return f"{what} pods of {', '.join(found)}" if what and found else ""


def _opens(spec: Mapping[str, Any]) -> str:
    """Return what a NetworkPolicy opens for the pods that it selects, "" if nothing."""
    ways = (("lets into", spec.get("ingress")), ("lets out", spec.get("egress")))
    return " and ".join(words for words, rules in ways if rules)


def _selects(spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    selector = spec.get("podSelector") or {}
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        _fits(one, labels) for one in selector.get("matchExpressions") or ()
    )


def _fits(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def _labels(deployment: Object) -> Mapping[str, str]:
    return deployment["spec"]["template"]["metadata"].get("labels") or {}


def _title(deployment: Object) -> str:
    labels = _labels(deployment)
    return f"{labels.get(COMPONENT, '').capitalize()} {labels.get(OBJECT_NAME, '')}"


def _guards(deployment: Object) -> bool:
    first = deployment["spec"]["template"]["spec"].get("initContainers") or ()
    return any(container["name"] == GUARD for container in first)


def _stays_open(pod: Object) -> bool:
    statuses = pod.get("status", {}).get("initContainerStatuses") or ()
    return any(status["name"] == GUARD and not status.get("ready") and _failed(status) for status in statuses)


def _failed(status: Mapping[str, Any]) -> bool:
    ends = (status.get(key, {}).get("terminated", {}) for key in ("state", "lastState"))
    return any(end.get("exitCode") == 1 for end in ends)
