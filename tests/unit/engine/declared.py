"""A namespace's declared resources for tests of the engine: plain dictionaries behind the Resources seam."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api.engine import EngineSpec
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.errors import CredentialPending


class Declared:
    """Resources by name. Addresses are the specs' URLs; `private` lists host:port that the Engine allows."""

    def __init__(self, *targets: Tool | Model, private: tuple[str, ...] = (), own: bool = False) -> None:
        self.namespace = "team-a"
        self.workflows: Mapping[str, Workflow] = {}
        self.policies: Mapping[str, Policy] = {}
        self.policies_known = True
        self.isolation_broken = ""
        self.tools: dict[str, Tool] = {}
        self.models: dict[str, Model] = {}
        self.engine = EngineSpec.model_validate({"security": {"allowedPrivateHosts": list(private)}})
        self.secrets: dict[tuple[str, str], str] = {}
        self.addresses: dict[str, str] = {}
        self.pending = False
        self._own = own
        for target in targets:
            self.add(target)

    def add(self, target: Tool | Model) -> None:
        (self.tools if isinstance(target, Tool) else self.models)[target.metadata.name] = target  # type: ignore[index]  # each to its own

    def address(self, kind: str, name: str) -> str:
        if name in self.addresses:
            return self.addresses[name]
        if kind == "Tool":
            return self.tools[name].spec.mcp.url or ""
        endpoint = self.models[name].spec.endpoint
        return endpoint.url if endpoint else ""

    def own(self, kind: str, name: str) -> bool:
        return self._own

    def credential(self, secret: str, key: str) -> str | None:
        if self.pending:
            raise CredentialPending(f"Secret {secret} is not mounted yet")
        return self.secrets.get((secret, key))


def tool(
    url: str | None = None, *, name: str = "ledger", functions: list[dict[str, Any]] | None = None, **spec: Any
) -> Tool:
    mcp = {"url": url} if url else {"server": {"image": "registry.example.com/t@sha256:" + "a" * 64}}
    listed = functions or [{"name": "read", "effect": "Read"}]
    return Tool.model_validate({"metadata": {"name": name}, "spec": {"mcp": mcp, "functions": listed, **spec}})


def model(url: str, *, name: str = "small", api: str = "OpenAIChat", **spec: Any) -> Model:
    endpoint = {"api": api, "url": url, "model": "small"}
    return Model.model_validate({"metadata": {"name": name}, "spec": {"endpoint": endpoint, **spec}})
