"""ClusterPolicies, as the Policies that they are for a namespace. Pure.

The operator decides which select a namespace and copies them into the status of its Engine: the engine reads that.
From then on a copy is a Policy like any other, whose name says its kind: `ClusterPolicy/no-writes`. No Policy of a
namespace can have such a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from fairlead.api.clusterpolicy import ClusterPolicy, LabelRequirement, NamespaceSelector
from fairlead.api.policy import Policy
from fairlead.policy.rules import unreadable

PREFIX = "ClusterPolicy/"


def selects(selector: NamespaceSelector | None, labels: Mapping[str, str]) -> bool:
    """Tell whether a namespace with these labels is bound."""
    if selector is None:
        return True
    wanted = selector.match_labels or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(requirement, labels) for requirement in selector.match_expressions or ()
    )


def copies(objects: Iterable[Mapping[str, Any]], labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the copies for a namespace with these labels, by name: {name, uid, generation, spec}.

    A ClusterPolicy whose selector cannot be read binds every namespace: nobody can say that it does not.
    """
    found = []
    for obj in sorted(objects, key=lambda one: str(one["metadata"]["name"])):
        head = obj["metadata"]
        try:
            bound = selects(NamespaceSelector.model_validate(obj["spec"]["namespaceSelector"]), labels)
        except (KeyError, ValidationError):
            bound = True
        if bound:
            spec = {key: value for key, value in obj["spec"].items() if key != "namespaceSelector"}
            head = {"name": head["name"], "uid": head["uid"], "generation": head.get("generation", 0)}
            found.append(head | {"spec": spec})
    return found


def from_copy(copy: Mapping[str, Any]) -> Policy | None:
    """Return a copy as a Policy; None of one that can forbid nothing. What is not understood denies every call."""
    metadata = {"name": PREFIX + copy["name"], "uid": copy.get("uid", ""), "generation": copy.get("generation", 0)}
    obj = {"metadata": metadata, "spec": copy["spec"]}
    try:
        return Policy.model_validate(obj)
    except ValidationError:
        return unreadable(obj)


def as_policy(policy: ClusterPolicy) -> Policy:
    """Return a ClusterPolicy as the Policy that it is where it binds."""
    spec = policy.spec.model_dump(by_alias=True, exclude_unset=True, exclude={"namespace_selector"})
    head = policy.metadata
    metadata = {"name": PREFIX + head.name, "uid": head.uid, "generation": head.generation}
    return Policy.model_validate({"metadata": metadata, "spec": spec})


def _holds(requirement: LabelRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value is not None and value in (requirement.values or ())
        case "NotIn":
            return value not in (requirement.values or ())
        case "Exists":
            return value is not None
        case _:
            return value is None
