"""kubectl as tests use it: a cluster's administrator, perhaps in one namespace, with YAML on standard input."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml
from tests.cluster import CommandFailed
from tests.cluster.commands import run

CONFLICTS = 10


@dataclass(frozen=True)
class Kubectl:
    """Call it with kubectl's words: `kubectl("get", "pods")`. It returns what kubectl printed.

    Raises:
        CommandFailed: kubectl failed; the text ends with its error output.
    """

    kubeconfig: str
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    namespace: str = "default"

    def __call__(self, *words: str, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        env = {"KUBECONFIG": self.kubeconfig, "PATH": self.path}
        options = (f"--namespace={self.namespace}",)
        return run("kubectl", *options, *words, stdin=stdin, env=env, timeout_seconds=timeout_seconds)

    def within(self, namespace: str) -> Kubectl:
        """The same for another namespace."""
        return replace(self, namespace=namespace)

    def get(self, *words: str) -> dict[str, Any]:
        """`kubectl get`, parsed."""
        found: dict[str, Any] = json.loads(self("get", *words, "--output=json"))
        return found

    def create(self, obj: Mapping[str, Any], *options: str) -> dict[str, Any]:
        """Create one object under strict validation, and return it."""
        words = ("create", "--filename=-", "--validate=strict", "--output=json", *options)
        made: dict[str, Any] = json.loads(self(*words, stdin=yaml.safe_dump(dict(obj))))
        return made

    def replace(self, obj: Mapping[str, Any], *options: str) -> None:
        """Replace an object; once more when its status was written between kubectl's reading and writing."""
        body = json.dumps(obj)
        for _ in range(CONFLICTS):
            try:
                self("replace", "--filename=-", *options, stdin=body)
            except CommandFailed as failed:
                if "the object has been modified" not in str(failed):
                    raise
            else:
                return
        raise AssertionError(f"{CONFLICTS} conflicts in a row")

    def refusal(self, *words: str, stdin: str | None = None) -> str:
        """What kubectl says when it is refused.

        Raises:
            AssertionError: it was not.
        """
        try:
            output = self(*words, stdin=stdin)
        except CommandFailed as failed:
            return str(failed)
        raise AssertionError(f"kubectl {' '.join(words)} was not refused: {output}")
