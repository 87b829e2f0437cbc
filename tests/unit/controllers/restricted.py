"""Pod Security `restricted` as a function, so that every pod we construct can be held against it without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What the `restricted` standard would refuse about a pod's spec."""
    found = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    for volume in pod.get("volumes", []):
        found += [f"volume of type {kind}" for kind in volume if kind != "name" and kind not in _VOLUMES]
    whole = pod.get("securityContext", {})
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        own = container.get("securityContext", {})
        name = container["name"]
        if own.get("privileged"):
            found.append(f"{name}: privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append(f"{name}: allowPrivilegeEscalation")
        if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            found.append(f"{name}: may run as root")
        if own.get("runAsUser", whole.get("runAsUser")) == 0:
            found.append(f"{name}: runs as root")
        if own.get("seccompProfile", whole.get("seccompProfile", {})).get("type") != "RuntimeDefault":
            found.append(f"{name}: no seccomp profile")
        capabilities = own.get("capabilities", {})
        if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
            found.append(f"{name}: capabilities")
        if any("hostPort" in port for port in container.get("ports", [])):
            found.append(f"{name}: host port")
    return found
