"""Permissions as RBAC knows them: who, which verb, on which named object of our group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fairlead.api import GROUP

Resource = Literal["tools", "toolfunctions", "models", "workflows"]


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing to be allowed: `invoke` on `resource/name`."""

    resource: Resource
    name: str
    verb: str = "invoke"

    def can_i(self, namespace: str, account: str) -> str:
        """Return the command that shows whether the account has it."""
        return (
            f"kubectl auth can-i {self.verb} {self.resource}.{GROUP}/{self.name} -n {namespace} "
            f"--as=system:serviceaccount:{namespace}:{account}"
        )


def model_permission(model: str) -> tuple[Permission, ...]:
    """Return what a model or embeddings call needs: any one of these."""
    return (Permission("models", model),)


def function_permission(tool: str, function: str) -> tuple[Permission, ...]:
    """Return what a function call needs: any one of these."""
    return (Permission("toolfunctions", f"{tool}.{function}"), Permission("tools", tool))


def workflow_permission(workflow: str) -> tuple[Permission, ...]:
    """Return what starting a child run needs: any one of these."""
    return (Permission("workflows", workflow),)
