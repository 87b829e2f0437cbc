"""The way to the cluster: the user's kubeconfig and rights, and the engine's read-only endpoints.

The engine is reached through the API server's service proxy, which strips `Authorization`. So a reader requests a
short-lived token of the account `fairlead-viewer` (which has no rights of its own) and sends it in a header of ours:
the right to read runs is the right to create that token.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fairlead.cli import exits
from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.flow.journal import Entry
    from fairlead.kube.client import Kube
    from fairlead.kube.types import ResourceType

VIEWER = "fairlead-viewer"
TOKEN_HEADER = "X-Fairlead-Token"
TOKEN_SECONDS = 600
ENGINE_SERVICE = "https:fairlead-engine:8443"
ATTEMPTS = 5
"""So often a list is read and written again, when others write to it meanwhile."""

T = TypeVar("T")

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", help="Default: the one of the kubeconfig's context.", show_default=False)
]
Context = Annotated[str, typer.Option("--context", help="A context of the kubeconfig.", show_default=False)]


@dataclass(frozen=True, slots=True)
class Access:
    """A connection, and the namespace that the command is about."""

    kube: Kube
    namespace: str

    async def user(self) -> str:
        """Return the name that the API server knows the user by.

        Raises:
            KubeError: it does not say.
        """
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await self.kube.request("POST", path, body=request)
        return str(answer["status"]["userInfo"]["username"])

    async def append(self, rt: ResourceType, name: str, field: str, entry: Mapping[str, Any]) -> None:
        """Add an entry at the end of a list in an object's spec; who is overtaken by another writer reads again.

        Raises:
            KubeError: the API server does not take it; Conflict when others were always faster.
        """
        from fairlead.errors import Conflict

        for attempt in range(ATTEMPTS):
            known = await self.kube.get(rt, name, self.namespace)
            version = {"resourceVersion": known["metadata"]["resourceVersion"]}
            spec = {field: [*known["spec"].get(field, ()), entry]}
            try:
                await self.kube.patch(rt, name, self.namespace, {"metadata": version, "spec": spec})
                return
            except Conflict:
                if attempt == ATTEMPTS - 1:
                    raise

    async def journal(self, run_uid: str) -> list[Entry]:
        """Return a run's journal as the engine has it.

        Raises:
            KubeError: the token is refused, or the engine does not answer or does not know the run.
        """
        from fairlead.flow.journal import Entry, EntryKind, Path, RunUid

        answer = await self.engine(f"/v1/runs/{run_uid}/journal", await self.viewer_token())
        return [
            Entry(
                RunUid(run_uid),
                row["seq"],
                row["at"],
                EntryKind(row["kind"]),
                Path(row["path"]),
                row["attempt"],
                row["data"],
            )
            for row in answer["entries"]
        ]

    async def definitions(self, tool: str) -> list[dict[str, Any]]:
        """Return the functions of a Tool as its server defines them now, asked by the engine.

        Raises:
            KubeError: the token is refused, there is no such Tool, or the engine or the server does not answer.
        """
        answer = await self.engine(f"/v1/tools/{tool}/definitions", await self.viewer_token())
        return list(answer["definitions"])

    async def engine(self, path: str, token: str) -> Any:
        """Return what the engine answers to a read.

        Raises:
            KubeError: the token is refused, or the engine does not answer or does not know of what is asked.
        """
        proxy = f"/api/v1/namespaces/{self.namespace}/services/{ENGINE_SERVICE}/proxy"
        return await self.kube.request("GET", proxy + path, headers={TOKEN_HEADER: token})

    async def viewer_token(self) -> str:
        """Return a token that lets its bearer read runs, for some minutes.

        Raises:
            KubeError: the user may not have one.
        """
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{VIEWER}/token"
        audience = f"https://engine.{self.namespace}.fairlead.dev/view"
        spec = {"audiences": [audience], "expirationSeconds": TOKEN_SECONDS}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self.kube.request("POST", path, body=request)
        return str(answer["status"]["token"])


@asynccontextmanager
async def connected(context: str, namespace: str) -> AsyncIterator[Access]:
    """Connect with the user's kubeconfig; what the API server refuses becomes an exit code.

    Raises:
        CommandFailed: there is no kubeconfig, no answer, no such object, or no permission.
    """
    from kubernetes.aio.config import ConfigException

    from fairlead.errors import KubeError
    from fairlead.kube.client import Kube

    try:
        kube = await Kube.connect(context=context or None)
    except (ConfigException, OSError) as error:
        raise CommandFailed(Exit.UNREACHABLE, f"no cluster: {error}") from error
    try:
        yield Access(kube, namespace or kube.namespace)
    except KubeError as error:
        raise CommandFailed(exits.of_status(error.status), error.message) from error
    finally:
        await kube.close()


def on_cluster(context: str, namespace: str, work: Callable[[Access], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with a connection."""
    import asyncio

    async def run() -> T:
        async with connected(context, namespace) as access:
            return await work(access)

    return asyncio.run(run())
