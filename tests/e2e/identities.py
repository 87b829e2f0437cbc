"""Acting as somebody: impersonated users with exactly the rights that a test gives them, and stolen tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from tests.cluster import CommandFailed
from tests.e2e.installation import SYSTEM
from tests.e2e.kubectl import Kubectl

OPERATOR = f"system:serviceaccount:{SYSTEM}:fairlead-operator"


@dataclass(frozen=True)
class Someone(Kubectl):
    """kubectl as another user."""

    user: str = ""

    def __call__(self, *words: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        return super().__call__(f"--as={self.user}", *words, stdin=stdin, timeout_seconds=timeout_seconds)


def someone(kubectl: Kubectl, user: str) -> Someone:
    """Impersonate a user in the same namespace."""
    return Someone(kubeconfig=kubectl.kubeconfig, path=kubectl.path, namespace=kubectl.namespace, user=user)


def engine_of(kubectl: Kubectl) -> Someone:
    """Impersonate the engine of the namespace."""
    return someone(kubectl, f"system:serviceaccount:{kubectl.namespace}:fairlead-engine")


def with_token_of(kubectl: Kubectl, account: str, *, directory: Path) -> Kubectl:
    """Use a token of a ServiceAccount of the operator's namespace, as a thief would."""
    token = kubectl.within(SYSTEM)("create", "token", account).strip()
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    config["users"][0]["user"] = {"token": token}
    path = directory / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return replace(kubectl, kubeconfig=str(path))


def tries(kubectl: Kubectl, obj: Mapping[str, Any]) -> str:
    """Try to create an object, on trial; return "" if that is allowed, else what the server says."""
    there = kubectl.within(obj["metadata"].get("namespace", kubectl.namespace))
    try:
        there("create", "--filename=-", "--dry-run=server", "--validate=strict", stdin=yaml.safe_dump(dict(obj)))
    except CommandFailed as failed:
        return str(failed)
    return ""


def give(kubectl: Kubectl, user: str, *rules: tuple[str, str, Sequence[str], str | None]) -> None:
    """Give a user rights in the namespace.

    Args:
        kubectl: the administrator.
        user: who gets them.
        rules: group, resource, verbs and the object's name (None: every object).
    """
    name = "rights-of-" + user.replace(":", "-")
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}
            | ({"resourceNames": [which]} if which else {})
            for group, resource, verbs, which in rules
        ],
    }
    kubectl("apply", "--filename=-", stdin=json.dumps(role))
    bind(kubectl, user, "Role", name)


def bind(kubectl: Kubectl, user: str, kind: str, role: str) -> None:
    """Bind a Role or ClusterRole to a user in the namespace."""
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": f"{role}-for-{user.replace(':', '-')}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    kubectl("apply", "--filename=-", stdin=json.dumps(binding))
