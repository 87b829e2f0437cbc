"""What the cluster is to the engine, in local mode: resources from files, grants from their Policies, no status.

These are seams of `engine/seams.py`; the one that makes child runs is in `localengine.py`.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fairlead.api.conditions import set_condition
from fairlead.api.engine import EngineSpec, Security
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.reasons import ReadyReason
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow, WorkflowStatus
from fairlead.cli.exits import CommandFailed, Exit
from fairlead.cli.manifests import Manifests
from fairlead.cli.standins import Server
from fairlead.cli.withfile import Environment
from fairlead.engine.authorized import permissions_of

DEFAULT_NAMESPACE = "default"

T = TypeVar("T", Tool, Model)


@dataclass(slots=True)
class LocalResources:
    """The declared objects of the files. `addresses` are the stand-ins' URLs; those that we started may be private."""

    namespace: str
    workflows: Mapping[str, Workflow]
    tools: Mapping[str, Tool]
    models: Mapping[str, Model]
    policies: Mapping[str, Policy]
    policies_known = True
    isolation_broken = ""
    engine: EngineSpec
    addresses: Mapping[Server, str] = field(default_factory=dict)
    started: frozenset[Server] = frozenset()
    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False)

    def address(self, kind: str, name: str) -> str:
        """Return the stand-in's URL, else the one in the file; empty where only a cluster would run a server."""
        return self.addresses.get((kind, name)) or _url(self.tools[name] if kind == "Tool" else self.models[name])

    def own(self, kind: str, name: str) -> bool:
        """Tell whether local mode started that server."""
        return (kind, name) in self.started

    def credential(self, secret: str, key: str) -> str | None:
        """Return a value of the `--with` file or of `--secret`."""
        return self.secrets.get((secret, key))

    def use(self, addresses: Mapping[Server, str], environment: Environment) -> None:
        """Take the stand-ins' URLs.

        A stand-in that was started gets no credential: the Secret was made for the server that it stands in for. One
        with a URL was named on purpose, so that its address may be a private one.
        """
        self.addresses = addresses
        self.started = frozenset(server for server in addresses if environment.servers[server].command is not None)
        self.tools = _without_credentials("Tool", self.tools, self.started)
        self.models = _without_credentials("Model", self.models, self.started)
        named = [_host_port(url) for server, url in addresses.items() if server not in self.started]
        allowed = [*(self.engine.security.allowed_private_hosts if self.engine.security else []), *named]
        self.engine = self.engine.model_copy(update={"security": Security(allowed_private_hosts=allowed)})


class NoStatus:
    """Where statuses go when there is no cluster: nowhere. The command line shows the state itself."""

    async def turn(self) -> None:
        """Always."""

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Drop it."""


def resources_of(found: Manifests, environment: Environment, *, namespace: str) -> LocalResources:
    """Return the resources of the files; `use` adds the stand-ins once they run."""
    engines = found.of("Engine")
    return LocalResources(
        namespace=namespace,
        workflows={name: _ready(workflow) for name, workflow in found.of("Workflow").items()},
        tools=found.of("Tool"),
        models=found.of("Model"),
        policies=found.policies(),
        engine=engines["default"].spec if "default" in engines else EngineSpec(),
        secrets=environment.secrets,
    )


def servers_of(workflow: Workflow, found: Manifests) -> set[Server]:
    """Return the Tools and Models that a Workflow and those that run as its children name and the files declare."""
    servers: set[Server] = set()
    known, waiting = {workflow.metadata.name}, [workflow]
    while waiting:
        for permission, *_ in permissions_of(waiting.pop().spec, found.of("Tool")):
            if permission.resource == "models":
                servers.add(("Model", permission.name))
            elif permission.resource != "workflows":
                servers.add(("Tool", permission.name.partition(".")[0]))
            elif permission.name in found.of("Workflow") and permission.name not in known:
                known.add(permission.name)
                waiting.append(found.of("Workflow")[permission.name])
    return {(kind, name) for kind, name in servers if name in found.of(kind)}


def refuse_containers(workflow: Workflow) -> None:
    """Say early that a Workflow needs pods. One that only a child run would need is refused by the engine.

    Raises:
        CommandFailed: it has a container step.
    """
    steps = [*workflow.spec.steps, *(step for block in workflow.spec.blocks for step in block.steps)]
    names = [step.name for step in steps if step.container is not None]
    if names:
        words = f"{', '.join(names)}: containers run on a cluster only; this Workflow cannot run without one"
        raise CommandFailed(Exit.USAGE, words)


def refuse_unreachable(servers: set[Server], found: Manifests, environment: Environment) -> None:
    """Say early which servers only a cluster would run.

    Raises:
        CommandFailed: there are some, and no stand-ins for them.
    """
    missing = [
        f"{kind} {name}"
        for kind, name in sorted(servers - environment.servers.keys())
        if not _url(found.of(kind)[name])
    ]
    if missing:
        words = f"{', '.join(missing)}: on a cluster the operator runs the server; name a stand-in in a --with FILE"
        raise CommandFailed(Exit.USAGE, words)


def _url(target: Tool | Model) -> str:
    if isinstance(target, Tool):
        return target.spec.mcp.url or ""
    return target.spec.endpoint.url if target.spec.endpoint else ""


def _host_port(url: str) -> str:
    from yarl import URL

    parsed = URL(url)
    return f"{parsed.raw_host}:{parsed.port}"


def _ready(workflow: Workflow) -> Workflow:
    """Return the Workflow with the condition that the operator sets once the static checks have passed."""
    generation = workflow.metadata.generation
    conditions = set_condition(
        (), "Ready", True, reason=ReadyReason.READY, now="1970-01-01T00:00:00Z", observed_generation=generation
    )
    status = WorkflowStatus(observed_generation=generation, conditions=conditions)
    return workflow.model_copy(update={"status": status})


def _without_credentials(kind: str, targets: Mapping[str, T], started: Container[Server]) -> dict[str, T]:
    return {
        name: target.model_copy(update={"spec": target.spec.model_copy(update={"credential": None})})
        if (kind, name) in started
        else target
        for name, target in targets.items()
    }
