"""How every pod that Fairlead builds is locked down: Pod Security `restricted`, and no more than it needs.

Pods are constructed, never merged: a closed set of fields comes from the user, everything else is fixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

USER_ID = 65532

RESTRICTED_CONTAINER: Mapping[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_POD: Mapping[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# A pod on a lost node is replaced after half a minute rather than after five.
SHORT_TOLERATIONS: tuple[Mapping[str, Any], ...] = tuple(
    {"key": f"node.kubernetes.io/{state}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    for state in ("not-ready", "unreachable")
)

NO_NAMES: Mapping[str, Any] = {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]}}
"""No name can be looked up: there is nothing that such a pod may reach."""


def unexpanded(text: str) -> str:
    """Return text that reaches the process as it is: the kubelet would expand `$(NAME)` in commands and env."""
    return text.replace("$(", "$$(")
