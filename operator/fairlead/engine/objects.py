"""The objects around runs on a cluster: implements `seams.Cluster` and `seams.ApprovalDesk`.

By the API server, and the informers of WorkflowRuns and Approvals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from fairlead.errors import Conflict, KubeError, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.types import APPROVALS, CONFIG_MAPS, WORKFLOW_RUNS
from fairlead.kube.watch import Informer

GUARD = "fairlead-approvals"
"""The chart's admission policy that admits Approvals and the decisions of people."""

ATTEMPTS = 5
"""So often a run is read and written again, when others write to it meanwhile."""

_PARTS: tuple[tuple[str, Any], ...] = (("parent", {}), ("signals", []))
"""What is read of the spec of a run that is there already, beside its Workflow."""

_FORGED = {"by": "fairlead:forged", "decision": "Approve"}


class ClusterObjects:
    """The WorkflowRuns, Approvals and ConfigMaps of the engine's namespace."""

    def __init__(self, kube: Kube, namespace: str, informer: Informer, approvals: Informer) -> None:
        """Take the client and the informers of WorkflowRuns and Approvals."""
        self._kube = kube
        self._namespace = namespace
        self._informer = informer
        self._approvals = approvals

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
        """Create a run, and return it, or the one that has its name already: of no Workflow, if it cannot be read.

        Raises:
            KubeError: the API server did not do it.
        """
        try:
            return await self._kube.once_ready(partial(self._kube.create, WORKFLOW_RUNS, run, self._namespace))
        except Conflict:
            return _readable(await self._kube.get(WORKFLOW_RUNS, run["metadata"]["name"], self._namespace))

    async def signal_run(self, name: str, workflow: str, signal: Mapping[str, Any]) -> bool:
        """Add a signal to a run of this Workflow, unless the same one is there; tell whether there is such a run.

        Raises:
            KubeError: the API server did not do it.
        """
        for _ in range(ATTEMPTS):
            try:
                run = _readable(await self._kube.get(WORKFLOW_RUNS, name, self._namespace))
            except NotFound:
                return False
            if run["spec"]["workflow"] != workflow:
                return False
            signals = run["spec"].get("signals", [])
            if signal in signals:
                return True
            body = {
                "metadata": {"resourceVersion": run["metadata"]["resourceVersion"]},
                "spec": {"signals": [*signals, signal]},
            }
            with contextlib.suppress(Conflict):
                await self._kube.patch(WORKFLOW_RUNS, name, self._namespace, body)
                return True
        raise Conflict(409, f"others were always faster to write the run {name}")

    def approval(self, name: str) -> Mapping[str, Any] | None:
        """Return an Approval as last seen."""
        return self._approvals.objects.get((self._namespace, name))

    async def create_approval(self, approval: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create an Approval, and return it, or the one that has its name already.

        Raises:
            KubeError: the API server did not do it.
        """
        try:
            return await self._kube.create(APPROVALS, approval, self._namespace)
        except Conflict:
            return await self._kube.get(APPROVALS, approval["metadata"]["name"], self._namespace)

    async def refuses_forgery(self, approval: Mapping[str, Any]) -> bool:
        """Try, without effect, to make this Approval with a decision in it; the guard must be what refuses it.

        Raises:
            KubeError: the API server does not tell.
        """
        forged = {
            "metadata": {"generateName": "forged-"},
            "spec": {**approval["spec"], "decisions": [_FORGED]},
            "apiVersion": APPROVALS.api_version,
            "kind": APPROVALS.kind,
        }
        path = APPROVALS.path(self._namespace)
        try:
            await self._kube.request("POST", path, body=forged, query={"dryRun": "All"})
        except KubeError as error:
            if error.retryable:
                raise
            return GUARD in error.message
        return False

    async def delete_run(self, name: str, uid: str) -> None:
        """Delete this very run; fine if it is gone or another one has its name.

        Raises:
            KubeError: the API server did not do it.
        """
        with contextlib.suppress(NotFound, Conflict):
            await self._kube.delete(WORKFLOW_RUNS, name, self._namespace, uid=uid)


def _readable(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a run that somebody made, past an older CRD perhaps; one that cannot be read is of no Workflow."""
    spec = run.get("spec")
    if not isinstance(spec, Mapping) or not isinstance(spec.get("workflow"), str):
        return {**run, "spec": {"workflow": ""}}
    readable = all(isinstance(spec.get(key, empty), type(empty)) for key, empty in _PARTS)
    return run if readable else {**run, "spec": {"workflow": ""}}
