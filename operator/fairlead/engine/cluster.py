"""The engine's namespace as the cluster has it: informers that become typed resources, and statuses that go back.

Implements `seams.Resources` and `seams.StatusSink`. An object that is not understood is not callable; of Policies and
the Engine the last good one is kept, so that a mistake there neither opens nor closes anything. A Policy with rules to
enforce of which it never enforced any denies everything: rules that nobody can read are not rules that nobody broke.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fairlead.api.canonical import MAX_SPEC_DEPTH, too_deep
from fairlead.api.engine import Engine, EngineSpec
from fairlead.api.meta import Resource
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.api.workflow import Workflow
from fairlead.errors import Conflict, CredentialPending, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.types import (
    APPROVALS,
    ENGINES,
    MODELS,
    POLICIES,
    TOOLS,
    WORKFLOW_RUNS,
    WORKFLOWS,
    ResourceType,
)
from fairlead.kube.watch import Informer
from fairlead.policy.clusterwide import PREFIX, from_copy
from fairlead.policy.rules import still_holds

MANAGER = "fairlead-engine"
SECRETS = Path("/var/run/fairlead/secrets")
SECRET_SECONDS = 2.0
"""How long a value that was read is used; the kubelet itself needs up to a minute to bring a new one."""

VERSIONS_KEPT = 4096
_STATUS_TYPES = {rt.kind: rt for rt in (WORKFLOW_RUNS, WORKFLOWS, TOOLS, MODELS, POLICIES, APPROVALS, ENGINES)}

Object = dict[str, Any]
T = TypeVar("T", bound=Resource)

_log = logging.getLogger(__name__)


class ClusterResources:
    """What is declared in the namespace, as last seen.

    Attributes:
        runs: the informer of WorkflowRuns; its changes go to `on_run`.
        approvals: the informer of Approvals; of their changes `on_change` is told.
        engine_uid: of the Engine object, "" while there is none.
        engine_object: that object, empty while there is none.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        *,
        on_change: Callable[[str, str], None],
        on_run: Callable[[Object | None, Object | None], None],
        secrets: Path = SECRETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare the informers; nothing is asked before `run`.

        Args:
            kube: the client.
            namespace: the only one that is looked at.
            on_change: called with (kind, name) after a Workflow, Tool, Model, Policy, Approval or Engine changed.
            on_run: called with (old, new) for every change of a WorkflowRun.
            secrets: where Secrets are mounted, a directory each.
            clock: monotonic seconds.
        """
        self.namespace = namespace
        workflows: dict[str, Workflow] = {}
        tools: dict[str, Tool] = {}
        models: dict[str, Model] = {}
        policies: dict[str, Policy] = {}
        self.workflows: Mapping[str, Workflow] = workflows
        self.tools: Mapping[str, Tool] = tools
        self.models: Mapping[str, Model] = models
        self.policies: Mapping[str, Policy] = policies
        self.policies_known = False
        self.isolation_broken = ""
        self._policies = policies
        self._copies: Any = None
        self.engine = EngineSpec()
        self.engine_uid = ""
        self.engine_object: Mapping[str, Any] = {}
        self._on_change = on_change
        self._secrets = secrets
        self._clock = clock
        self._values: dict[tuple[str, str], tuple[float, str | None]] = {}

        def informer(rt: ResourceType, on_object: Callable[[Object | None, Object | None], None]) -> Informer:
            return Informer(kube, rt, namespace=namespace, on_change=on_object)

        def on_approval(old: Object | None, new: Object | None) -> None:
            on_change("Approval", (new or old or {})["metadata"]["name"])

        self.runs = informer(WORKFLOW_RUNS, on_run)
        self.approvals = informer(APPROVALS, on_approval)
        self._informers = [
            informer(WORKFLOWS, self._taker(workflows, Workflow)),
            informer(TOOLS, self._taker(tools, Tool)),
            informer(MODELS, self._taker(models, Model)),
            informer(POLICIES, self._taker(policies, Policy, otherwise=still_holds)),
            informer(ENGINES, self._take_engine),
            self.runs,
            self.approvals,
        ]

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())

    async def synced(self) -> None:
        """Wait until everything was listed once."""
        for informer in self._informers:
            await informer.synced.wait()

    def age_seconds(self) -> float:
        """Return how long ago the API server last said anything to the most silent watch."""
        return self._clock() - min(informer.last_seen for informer in self._informers)

    def address(self, kind: str, name: str) -> str:
        """Return the URL in the spec, else that of the Service of the server that the operator runs."""
        if kind == "Tool":
            mcp = self.tools[name].spec.mcp
            return mcp.url or (self._service("tool", name, mcp.server.port, mcp.server.path) if mcp.server else "")
        spec = self.models[name].spec
        if spec.endpoint is not None:
            return spec.endpoint.url
        return self._service("model", name, spec.server.port, spec.server.path) if spec.server else ""

    def own(self, kind: str, name: str) -> bool:
        """Tell whether the operator runs that server."""
        if kind == "Tool":
            return name in self.tools and self.tools[name].spec.mcp.server is not None
        return name in self.models and self.models[name].spec.server is not None

    def credential(self, secret: str, key: str) -> str | None:
        """Return a value of a mounted Secret, None when the key is missing.

        Raises:
            CredentialPending: the Secret is not mounted yet.
        """
        known = self._values.get((secret, key))
        if known is not None and self._clock() - known[0] < SECRET_SECONDS:
            return known[1]
        directory = self._secrets / secret
        if not directory.is_dir():
            raise CredentialPending(f"Secret {secret} is not mounted into the engine yet")
        try:
            value: str | None = (directory / key).read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            value = None
        self._values[(secret, key)] = (self._clock(), value)
        return value

    def _service(self, component: str, name: str, port: int, path: str) -> str:
        return f"http://fairlead-{component}-{name}.{self.namespace}.svc:{port}{path}"

    def _taker(
        self,
        known: dict[str, T],
        model: type[T],
        *,
        otherwise: Callable[[Object, T | None], T | None] = lambda obj, last: None,
    ) -> Callable[[Object | None, Object | None], None]:
        """Return what keeps `known` as the cluster is.

        `otherwise` takes an object that is not understood and the last one that was; it returns what is known instead.
        """
        good: dict[str, T] = {}

        def take(old: Object | None, new: Object | None) -> None:
            name = (new or old or {})["metadata"]["name"]
            last, found = good.pop(name, None), None
            if new is not None:
                parsed = _parsed(model, new)
                found = parsed or otherwise(new, last)
                if (kept := parsed or last) is not None:
                    good[name] = kept
            if found is not None:
                known[name] = found
            else:
                known.pop(name, None)
            self._on_change(model.crd.kind, name)

        return take

    def _take_engine(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if name != "default":
            return
        self.engine_uid = str(new["metadata"].get("uid", "")) if new is not None else ""
        self.engine_object = new or {}
        parsed = _parsed(Engine, new) if new is not None else None
        if parsed is not None:
            self.engine = parsed.spec
        elif new is None:
            self.engine = EngineSpec()
        self._take_copies((new or {}).get("status") or {})
        self.isolation_broken = _broken((new or {}).get("status") or {})
        self._on_change("Engine", name)

    def _take_copies(self, status: Mapping[str, Any]) -> None:
        """Take over the ClusterPolicies of the Engine's status; where it says nothing, those known stay."""
        copies = status.get("clusterPolicies")
        if copies is None or copies == self._copies:
            return
        self._copies = copies
        bound = {PREFIX + copy["name"]: from_copy(copy) for copy in copies}
        known = {name: policy for name, policy in self._policies.items() if name.startswith(PREFIX)}
        self.policies_known = True
        for name in known.keys() | bound.keys():
            policy = bound.get(name)
            if policy == known.get(name):
                continue
            if policy is None:
                del self._policies[name]
            else:
                self._policies[name] = policy
            self._on_change("Policy", name)


class ClusterSink:
    """Writes statuses by server-side apply, to the very object that was meant: its UID is compared on a fresh read.

    The server ignores a wrong UID in a status, but refuses a stale resourceVersion. So each write carries the version
    of an object whose UID was seen to be right: that of our last write, else as it was met, else of a read.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._versions: OrderedDict[str, str] = OrderedDict()

    def seen(self, metadata: Mapping[str, Any]) -> None:
        """Take note of an object that was met, so that its first status needs no read."""
        self._keep(metadata["uid"], self._versions.get(metadata["uid"], metadata["resourceVersion"]))

    async def turn(self) -> None:
        """Wait for a turn among this process' writes."""
        await self._kube.turn()

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        """Write the engine's part of a status.

        Raises:
            NotFound: the object is gone, or another one has its name.
            Conflict: it changed twice meanwhile; try again.
            KubeError: the API server did not take it.
        """
        rt = _STATUS_TYPES[kind]
        version = self._versions.pop(uid, None)
        if version is not None:
            try:
                await self._apply(rt, name, uid, version, status)
                return
            except Conflict:
                pass  # somebody else wrote: look again
        await self._apply(rt, name, uid, await self._read_version(rt, name, uid), status)

    async def _read_version(self, rt: ResourceType, name: str, uid: str) -> str:
        metadata = (await self._kube.get(rt, name, self._namespace))["metadata"]
        if metadata["uid"] != uid:
            raise NotFound(404, f"{rt.kind} {name} is another object now")
        return str(metadata["resourceVersion"])

    async def _apply(self, rt: ResourceType, name: str, uid: str, version: str, status: Mapping[str, Any]) -> None:
        metadata = {"name": name, "namespace": self._namespace, "resourceVersion": version}
        body = {"metadata": metadata, "status": dict(status)}
        written = await self._kube.apply_status(rt, body, manager=MANAGER, urgent=True)
        self._keep(uid, written["metadata"]["resourceVersion"])

    def _keep(self, uid: str, version: str) -> None:
        self._versions[uid] = version
        while len(self._versions) > VERSIONS_KEPT:
            self._versions.popitem(last=False)


def _broken(status: Mapping[str, Any]) -> str:
    """Return what the operator found wrong with the network around our pods; "" if nothing."""
    said = [
        one for one in status.get("conditions", ()) if one["type"] == "NetworkIsolation" and one["status"] == "False"
    ]
    return f"{said[0]['reason']}: {said[0]['message']}" if said else ""


def _parsed(model: type[T], obj: Object) -> T | None:
    kind, name = model.crd.kind, obj["metadata"]["name"]
    if too_deep(obj.get("spec"), most=MAX_SPEC_DEPTH):
        _log.error("%s %s is not understood: nested deeper than %d levels", kind, name, MAX_SPEC_DEPTH)
        return None
    try:
        return model.model_validate(obj)
    except ValidationError as error:
        _log.error("%s %s is not understood: %d problems", kind, name, error.error_count())
        return None
