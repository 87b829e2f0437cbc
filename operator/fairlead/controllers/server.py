"""The pod of a Tool or Model that asks for a server: locked in, reachable by the engine alone, on one port.

It has no token, no Secret, no name service and no way out: what it can do is answer. `tool.py` and `model.py` share
this; the two kinds differ only in where their spec has the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from fairlead.api.reasons import ReadyReason
from fairlead.api.server import Server, ServerResources
from fairlead.controllers.children import (
    COMPONENT,
    ENGINE_COMPONENT,
    labels,
    metadata,
    owner,
    selector,
    waiting_reason,
)
from fairlead.controllers.plan import Doomed, Object, Plan, Verdict
from fairlead.controllers.settings import EngineImage
from fairlead.kube.restricted import NO_NAMES, RESTRICTED_CONTAINER, RESTRICTED_POD, SHORT_TOLERATIONS, unexpanded
from fairlead.kube.types import DEPLOYMENTS, MODELS, NETWORK_POLICIES, SERVICES, TOOLS, ResourceType

Component = Literal["tool", "model"]
_TYPES: Mapping[Component, ResourceType] = {"tool": TOOLS, "model": MODELS}

CPU_REQUEST = "50m"
"""Servers wait most of the time: a node holds more of them than its cores could run at once."""


def server_name(component: Component, name: str) -> str:
    """Return the name of the Deployment, the Service and the NetworkPolicy."""
    return f"fairlead-{component}-{name}"


def plan_server(
    component: Component,
    obj: Mapping[str, Any],
    server: Server,
    *,
    guard: EngineImage | None,
    deployment: Object | None,
    pods: list[Object],
) -> Plan:
    """Return the objects of a server and whether it is ready.

    Args:
        component: what the server is for.
        obj: the Tool or Model.
        server: what its spec says about the server.
        guard: the image of `fairlead.isolation`, which lets the server start; None: it starts at once.
        deployment: the Deployment as last seen.
        pods: its pods, looked at only while it is not available.
    """
    name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
    head = metadata(
        server_name(component, name),
        namespace,
        labels=labels(component, name),
        owners=[owner(_TYPES[component], obj)],
    )
    pods_of = selector(component, name)
    port = {"name": "server", "port": server.port, "targetPort": "server", "protocol": "TCP"}
    return Plan(
        verdict=_verdict(deployment, pods),
        apply=(
            # The way in and out is closed before there is a pod.
            (NETWORK_POLICIES, {"metadata": head, "spec": _network_policy(pods_of, server.port)}),
            (SERVICES, {"metadata": head, "spec": {"type": "ClusterIP", "selector": pods_of, "ports": [port]}}),
            (DEPLOYMENTS, {"metadata": head, "spec": _deployment(component, name, server, guard)}),
        ),
        again_seconds=None if is_available(deployment) else 5.0,
    )


def no_server(component: Component, obj: Mapping[str, Any], *, exists: bool) -> tuple[Doomed, ...]:
    """Return what to remove when an object has no server any more."""
    name, namespace = server_name(component, obj["metadata"]["name"]), obj["metadata"]["namespace"]
    return tuple(Doomed(rt, name, namespace) for rt in (DEPLOYMENTS, SERVICES, NETWORK_POLICIES)) if exists else ()


def network_of(deployment: Object) -> Object:
    """Return the spec of the NetworkPolicy around a server's pods, whatever its port: that may just be changing."""
    return _network_policy(deployment["spec"]["selector"]["matchLabels"], None)


def is_server(deployment: Object) -> bool:
    """Tell whether a Deployment is one that was made here, by the name that admission keeps for us."""
    name: str = deployment["metadata"]["name"]
    return name.startswith(tuple(server_name(component, "") for component in _TYPES))


def is_available(deployment: Object | None) -> bool:
    """Tell whether the newest Deployment has a pod that answers."""
    if deployment is None:
        return False
    status: Object = deployment.get("status", {})
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and status.get("updatedReplicas", 0) > 0
        and status.get("availableReplicas", 0) > 0
        and status.get("unavailableReplicas", 0) == 0
    )


def _verdict(deployment: Object | None, pods: list[Object]) -> Verdict:
    if is_available(deployment):
        return Verdict(True, ReadyReason.READY, "the server answers")
    if deployment is None:
        return Verdict(False, ReadyReason.SERVER_NOT_READY, "the server is being made")
    refused = next(
        (
            condition.get("message", "")
            for condition in deployment.get("status", {}).get("conditions", [])
            if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True"
        ),
        "",
    )
    why = refused or waiting_reason(pods) or "the server does not answer yet"
    return Verdict(False, ReadyReason.SERVER_NOT_READY, why)


def _deployment(component: Component, name: str, server: Server, guard: EngineImage | None) -> Object:
    wanted = server.resources or ServerResources()
    resources = {"cpu": wanted.cpu, "memory": wanted.memory}
    container: Object = {
        "name": "server",
        "image": server.image,
        "ports": [{"name": "server", "containerPort": server.port, "protocol": "TCP"}],
        "resources": {"requests": resources | {"cpu": CPU_REQUEST}, "limits": resources},
        "securityContext": dict(RESTRICTED_CONTAINER),
        "readinessProbe": {"tcpSocket": {"port": "server"}, "periodSeconds": 2, "failureThreshold": 3},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if server.command:
        container["command"] = [unexpanded(word) for word in server.command]
    if server.env:
        container["env"] = [{"name": variable.name, "value": unexpanded(variable.value)} for variable in server.env]
    return {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(component, name)},
        "template": {
            "metadata": {"labels": labels(component, name)},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                **NO_NAMES,
                "securityContext": dict(RESTRICTED_POD),
                "terminationGracePeriodSeconds": 10,
                "tolerations": [dict(toleration) for toleration in SHORT_TOLERATIONS],
                **({"initContainers": [_isolation(guard)]} if guard else {}),
                "containers": [container],
                "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
            },
        },
    }


def _isolation(image: EngineImage) -> Object:
    """Return the container that ends when the network policy binds the pod."""
    return {
        "name": "isolation",
        "image": image.name,
        "imagePullPolicy": image.pull_policy,
        "command": ["python3", "-m", "fairlead.isolation"],
        "resources": {
            "requests": {"cpu": CPU_REQUEST, "memory": "64Mi"},
            "limits": {"cpu": "500m", "memory": "64Mi"},
        },
        "securityContext": dict(RESTRICTED_CONTAINER),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _network_policy(pods_of: dict[str, str], port: int | None) -> Object:
    """Return a NetworkPolicy that lets nothing out: egress is governed, and no rule of it is there.

    An empty list of them would say the same, and be another object for the API server each time that it is applied.
    """
    return {
        "podSelector": {"matchLabels": pods_of},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [{"podSelector": {"matchLabels": {COMPONENT: ENGINE_COMPONENT}}}],
                "ports": [{"protocol": "TCP", "port": port}] if port else None,
            }
        ],
    }
