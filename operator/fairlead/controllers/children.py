"""How everything that the operator builds is labelled, owned and locked down.

Pods are constructed, never merged: a closed set of fields comes from the user, everything else is fixed here, so that
every pod passes Pod Security `restricted` and holds nothing that its code could misuse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.controllers.plan import Object
from fairlead.kube.types import ResourceType

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "fairlead.dev/component"
OBJECT_NAME = "fairlead.dev/name"
MANAGED_SELECTOR = f"{MANAGED_BY}=fairlead"
ENGINE_COMPONENT = "engine"
RESERVED_PREFIX = "fairlead-"


def is_reserved(account: str) -> bool:
    """Tell whether a ServiceAccount can never be granted anything nor run a Workflow."""
    return account == "default" or account.startswith(RESERVED_PREFIX)


def labels(component: str, name: str) -> dict[str, str]:
    """Return the labels of what belongs to an object; the two `fairlead.dev` ones also select its pods."""
    return {MANAGED_BY: "fairlead", "app.kubernetes.io/part-of": "fairlead", **selector(component, name)}


def selector(component: str, name: str) -> dict[str, str]:
    """Return the labels that select the pods of an object."""
    return {COMPONENT: component, OBJECT_NAME: name}


def owner(rt: ResourceType, obj: Mapping[str, Any], *, controller: bool = True) -> Object:
    """Return the owner reference to an object; only a controller holds up the owner's foreground deletion."""
    reference: Object = {
        "apiVersion": rt.api_version,
        "kind": rt.kind,
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
    }
    return reference | ({"controller": True, "blockOwnerDeletion": True} if controller else {})


def metadata(name: str, namespace: str, *, labels: Mapping[str, str], owners: list[Object]) -> Object:
    """Return the metadata of something that the operator makes."""
    made: Object = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return made | ({"ownerReferences": owners} if owners else {})


def waiting_reason(pods: list[Object]) -> str:
    """Return why containers of these pods do not run, for example `ImagePullBackOff: ...`; "" if nothing is wrong."""
    for pod in pods:
        status = pod.get("status", {})
        for container in (*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])):
            waiting = container.get("state", {}).get("waiting", {})
            ended = container.get("lastState", {}).get("terminated", {})
            if ended.get("message") and not container.get("ready"):
                return _sentence(ended)  # its own last words; that it waits to be started again says less
            if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                return _sentence(waiting)
            if not container.get("ready") and ended.get("reason"):
                return _sentence(ended)
        for condition in status.get("conditions", []):
            if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                return _sentence(condition)
    return ""


def _sentence(state: Mapping[str, Any]) -> str:
    message = state.get("message", "")
    return f"{state['reason']}: {message}" if message else str(state["reason"])
