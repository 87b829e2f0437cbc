"""The seams between a cluster and local mode: resources, permissions, statuses, who makes child runs, who asks people.

There is one engine; `cluster.py` and the CLI's local mode each bring their own five. The sixth, `Cluster`, is for what
only a cluster has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from fairlead.api.engine import EngineSpec
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.policy.decision import Authorization
from fairlead.policy.permission import Permission


class Resources(Protocol):
    """What is declared in the namespace, as last seen. Reading is synchronous and never waits.

    Among the `policies` are the ClusterPolicies that bind it; `policies_known` is False while nobody has said which.
    `isolation_broken` says why pods of ours are not locked in, "" as far as anybody knows.
    """

    namespace: str
    workflows: Mapping[str, Workflow]
    tools: Mapping[str, Tool]
    models: Mapping[str, Model]
    policies: Mapping[str, Policy]
    policies_known: bool
    isolation_broken: str
    engine: EngineSpec

    def address(self, kind: str, name: str) -> str:
        """Return the base URL of a Tool's or Model's server (`kind` is "Tool" or "Model").

        That is its `url`, or the Service of the pod that the operator runs, or a local stand-in; always with the
        path (`/v1`, `/mcp`).
        """
        ...

    def own(self, kind: str, name: str) -> bool:
        """Tell whether that server is one that Fairlead runs: such addresses may be private."""
        ...

    def credential(self, secret: str, key: str) -> str | None:
        """Return a Secret's value, None when the Secret or key is missing.

        Raises:
            CredentialPending: the Secret is named but not mounted yet.
        """
        ...


class Authorizer(Protocol):
    """Who decides about permissions."""

    async def authorize(self, account: str, any_of: tuple[Permission, ...]) -> Authorization:
        """Tell whether the ServiceAccount has at least one of these. Never raises: no answer is Unavailable."""
        ...


class StatusSink(Protocol):
    """Where a status goes."""

    async def turn(self) -> None:
        """Wait until something may be written; what is written is made up only then, so that it is not old news."""
        ...

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Write the engine's part of a status; at most once per call, only if it changed."""
        ...


class RunCreator(Protocol):
    """Who makes WorkflowRuns."""

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a run, and return it, or the one that has its name already.

        Raises:
            KubeError: it was not made; if `retryable`, perhaps.
        """
        ...


class ApprovalDesk(Protocol):
    """Where people are asked, and decide."""

    def approval(self, name: str) -> Mapping[str, Any] | None:
        """Return an Approval as last seen."""
        ...

    async def create_approval(self, approval: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make an Approval, and return it, or the one that has its name already.

        Raises:
            KubeError: it was not made.
        """
        ...

    async def refuses_forgery(self, approval: Mapping[str, Any]) -> bool:
        """Try to make this Approval with a decision by somebody else in it; tell whether that is refused.

        Raises:
            KubeError: nobody can tell.
        """
        ...


class Cluster(RunCreator, Protocol):
    """The objects around runs: what only a cluster has."""

    def runs(self) -> Iterable[Mapping[str, Any]]:
        """Return all WorkflowRuns of the namespace, as last seen."""
        ...

    async def signal_run(self, name: str, workflow: str, signal: Mapping[str, Any]) -> bool:
        """Add a signal to a run of this Workflow, unless the same one is there; tell whether there is such a run.

        Raises:
            KubeError: the API server did not do it.
        """
        ...

    async def config_map(self, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap of the namespace.

        Raises:
            NotFound: there is none.
            KubeError: the API server does not tell.
        """
        ...

    async def delete_run(self, name: str, uid: str) -> None:
        """Delete this very run; fine if it is gone.

        Raises:
            KubeError: the API server did not do it.
        """
        ...
