"""Acting as somebody: impersonated users with exactly the rights that a test gives them, and stolen tokens."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from tests.cluster import CommandFailed
from tests.e2e.installation import SYSTEM
from tests.e2e.kubectl import Kubectl

OPERATOR = f"system:serviceaccount:{SYSTEM}:fairlead-operator"
UNINSTALL = f"system:serviceaccount:{SYSTEM}:fairlead-uninstall"
POD_NAME = "authentication.kubernetes.io/pod-name"
"""What the API server knows of a request with the token of a pod, beside the account's name."""


@dataclass(frozen=True)
class Someone(Kubectl):
    """kubectl as another user."""

    user: str = ""

    def __call__(self, *words: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        return super().__call__(f"--as={self.user}", *words, stdin=stdin, timeout_seconds=timeout_seconds)


def someone(kubectl: Kubectl, user: str) -> Someone:
    """Impersonate a user in the same namespace."""
    return Someone(kubeconfig=kubectl.kubeconfig, path=kubectl.path, namespace=kubectl.namespace, user=user)


def engine_name(kubectl: Kubectl) -> str:
    """Return the user name of the namespace's engine."""
    return f"system:serviceaccount:{kubectl.namespace}:fairlead-engine"


def engine_of(kubectl: Kubectl) -> Someone:
    """Be the engine of the namespace, as whoever has the token of its pod is."""
    return in_pod(kubectl, engine_name(kubectl), "fairlead-engine-0")


def operator_of(kubectl: Kubectl) -> Someone:
    """Be the operator, as whoever has the token of its pod is."""
    return in_pod(kubectl, OPERATOR, "fairlead-operator-5d9f-x")


def in_pod(kubectl: Kubectl, user: str, pod: str) -> Someone:
    """Impersonate an account as it speaks from a pod. An administrator may; kubectl takes that from its file alone."""
    config = _config(kubectl)
    config["users"][0]["user"] |= {"as": user, "as-user-extra": {POD_NAME: [pod]}}
    return replace(someone(kubectl, user), kubeconfig=_written(config))


def with_token(kubectl: Kubectl, token: str) -> Kubectl:
    """Use a token, as a thief would."""
    config = _config(kubectl)
    config["users"][0]["user"] = {"token": token}
    return replace(kubectl, kubeconfig=_written(config))


def token_of(kubectl: Kubectl, pod: Mapping[str, Any], account: str, *options: str) -> str:
    """Return a token of an account as the kubelet gets it for a pod; nobody else is given those of Fairlead's pods."""
    node = (f"--as=system:node:{pod['spec']['nodeName']}", "--as-group=system:nodes")
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    return kubectl("create", "token", account, *node, *bound, *options).strip()


def _config(kubectl: Kubectl) -> Any:
    return yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))


def _written(config: Any) -> str:
    path = _directory() / f"{uuid.uuid4().hex}.kubeconfig"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return str(path)


@functools.cache
def _directory() -> Path:
    path = Path(tempfile.mkdtemp(prefix="fairlead-identities-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def editor(kubectl: Kubectl, role: str = "edit") -> Kubectl:
    """Be somebody with a role of Kubernetes' own, by a token: who is impersonated impersonates nobody."""
    kubectl("create", "serviceaccount", "editor")
    kubectl("create", "rolebinding", "editor", f"--clusterrole={role}", f"--serviceaccount={kubectl.namespace}:editor")
    return with_token(kubectl, kubectl("create", "token", "editor").strip())


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
