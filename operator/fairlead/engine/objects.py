"""The objects around runs on a cluster: implements `seams.Cluster` by the API server and the informer of runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from fairlead.errors import Conflict, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.types import CONFIG_MAPS, WORKFLOW_RUNS
from fairlead.kube.watch import Informer


class ClusterObjects:
    """The WorkflowRuns and ConfigMaps of the engine's namespace."""

    def __init__(self, kube: Kube, namespace: str, informer: Informer) -> None:
        """Take the client and the informer of WorkflowRuns."""
        self._kube = kube
        self._namespace = namespace
        self._informer = informer

    def runs(self) -> Iterable[Mapping[str, Any]]:
        """Return all WorkflowRuns, as last seen."""
        return self._informer.objects.values()

    async def config_map(self, name: str) -> Mapping[str, str]:
        """Return the data of a ConfigMap.

        Raises:
            NotFound: there is none.
            KubeError: the API server does not tell.
        """
        found: Mapping[str, str] = (await self._kube.get(CONFIG_MAPS, name, self._namespace)).get("data") or {}
        return found

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create a run, and return it, or the one that has its name already.

        Raises:
            KubeError: the API server did not do it.
        """
        try:
            return await self._kube.create(WORKFLOW_RUNS, run, self._namespace)
        except Conflict:
            return await self._kube.get(WORKFLOW_RUNS, run["metadata"]["name"], self._namespace)

    async def delete_run(self, name: str, uid: str) -> None:
        """Delete this very run; fine if it is gone or another one has its name.

        Raises:
            KubeError: the API server did not do it.
        """
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(WORKFLOW_RUNS, name, self._namespace, uid=uid)
