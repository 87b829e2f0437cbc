"""The engine's process on a cluster: built once from the environment, ends when any part of it does.

    informers --> resources, runs --> engine --> statuses
    readers ----> endpoints --------> store
    requests ---> hooks ------------> runs and signals, as objects
    containers -> gateway ----------> gate

The order of a start: own the store, list everything, recover, then serve. Nothing is executed before the cluster was
asked what it knows (G8). Of several replicas one owns the store; the others stand by, with their informers warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from fairlead.api.workflow import Workflow
from fairlead.engine.authorizer import KubeAuthorizer
from fairlead.engine.clock import SteadyClock, agree
from fairlead.engine.cluster import ClusterResources, ClusterSink
from fairlead.engine.dialer import Dialer
from fairlead.engine.endpoints import probes, readers
from fairlead.engine.engine import EngineOptions, WorkflowEngine
from fairlead.engine.enginestatus import EngineReport
from fairlead.engine.gate import Gate
from fairlead.engine.gateway import Gateway
from fairlead.engine.guardrails import Guardrails
from fairlead.engine.hooks import Hooks
from fairlead.engine.log import RunLog
from fairlead.engine.models import ModelCaller
from fairlead.engine.news import news
from fairlead.engine.objects import ClusterObjects
from fairlead.engine.pods import PodRunner
from fairlead.engine.pods.build import Beside, EngineAddress
from fairlead.engine.pods.calling import CallingPods
from fairlead.engine.pods.refusals import REMEMBERED, Refusals
from fairlead.engine.policies import PolicyReports
from fairlead.engine.ports import HOOKS_PORT, HTTP_PORT, HTTPS_PORT, STEPS_PORT, Ports
from fairlead.engine.reachable import Reachability
from fairlead.engine.recent import RecentCalls
from fairlead.engine.status import StatusWriter, Written
from fairlead.engine.store import Place
from fairlead.engine.store.postgres import Address, Postgres, database_url
from fairlead.engine.tokens import Issuer, Tokens
from fairlead.engine.tools import Discovery, ToolCaller
from fairlead.errors import KubeError, StoreError, StoreLocked, Unreachable
from fairlead.flow.journal import RunUid
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.types import CONFIG_MAPS, ENGINES, PODS, WORKFLOW_RUNS, WORKFLOWS, ResourceType
from fairlead.telemetry.export import SpanExporter
from fairlead.telemetry.metrics import EngineMetrics

CA_CONFIG_MAP = "fairlead-engine-ca"
LONGEST_LAG_SECONDS = 10.0
LAG_SECONDS = 1.0
CA_RETRY_SECONDS = 5.0
CA_SECONDS = 600.0
LEFT_PODS_MS = 3_600_000
"""Pods of runs that ended longer ago are gone, and their tokens too."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator tells the engine.

    Attributes:
        namespace: the only one that this engine looks at.
        data: the directory on its volume.
        database: the file with the URL of a PostgreSQL database; None for SQLite on the volume.
        pod: this replica's name.
        image: what stands beside containers of steps: this process' own.
        pull_policy: of that image.
    """

    namespace: str
    data: Path
    database: Path | None = None
    pod: str = ""
    image: str = ""
    pull_policy: str = "IfNotPresent"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the `FAIRLEAD_*` variables and HOSTNAME. Spans are configured by the `OTEL_*` variables alone."""
        database = environment.get("FAIRLEAD_DATABASE")
        return cls(
            environment["FAIRLEAD_NAMESPACE"],
            Path(environment.get("FAIRLEAD_DATA", "/var/lib/fairlead")),
            Path(database) if database else None,
            environment.get("HOSTNAME", "fairlead-engine-0"),
            environment.get("FAIRLEAD_IMAGE", ""),
            environment.get("FAIRLEAD_IMAGE_PULL_POLICY", "IfNotPresent"),
        )


class App:
    """Everything that one engine process has."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self.metrics = EngineMetrics()
        self._kube = kube
        self._settings = settings
        self._clock = SteadyClock()
        self._recent = RecentCalls(self._clock)
        names = tuple(
            f"fairlead-engine{domain}" for domain in (f".{settings.namespace}.svc", f".{settings.namespace}", "")
        )
        self._ports = Ports(settings.data / "tls", names)
        self._dialer = Dialer()
        self._exporter = SpanExporter.from_environment(on_dropped=self.metrics.spans_dropped.inc)
        self._resources = ClusterResources(kube, settings.namespace, on_change=self._on_change, on_run=self._on_run)
        self._tools = ToolCaller(self._dialer, self._resources)
        self._calling = CallingPods(self._open_runs, Refusals(self.metrics.step_requests_refused))
        self._sink = ClusterSink(kube, settings.namespace)
        self._authorizer = KubeAuthorizer(kube, settings.namespace, counter=self.metrics.authorizer_cache)
        self._objects = ClusterObjects(kube, settings.namespace, self._resources.runs, self._resources.approvals)
        self._events = EventRecorder(kube, component="fairlead-engine", instance=settings.pod)
        self._server_statuses = [StatusWriter(kind, self._sink, durable=_nothing) for kind in ("Tool", "Model")]
        self._reachability = Reachability(
            self._resources,
            tools=self._tools,
            dialer=self._dialer,
            tool_statuses=self._server_statuses[0],
            model_statuses=self._server_statuses[1],
            clock=self._clock,
        )
        self._engine_statuses = StatusWriter("Engine", self._sink, durable=self._recorded)
        report = EngineReport(self._resources, self._engine_statuses, owner=settings.pod, clock=self._clock)
        self._guardrails = Guardrails(self._objects, report.guarded)
        self._policy_statuses = StatusWriter("Policy", self._sink, durable=self._recorded)
        self._policies = PolicyReports(
            self._resources, self._policy_statuses, clock=self._clock, on_cluster_rule=report.did
        )
        self._gate: Gate | None = None
        self._engine: WorkflowEngine | None = None
        self._waiting: StoreError | None = None
        self._stopping = asyncio.Event()
        self._beat = time.monotonic()

    async def run(self) -> None:
        """Serve until SIGTERM.

        Raises:
            Exception: a part died; the process shall end with an error.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        try:
            async with asyncio.TaskGroup() as group:
                parts = [
                    group.create_task(_endless(part))
                    for part in (self._serve_probes(), self._measure_lag(), self._resources.run(), self._events.run())
                ]
                await self._serve(group, parts)
                for part in parts:
                    part.cancel()
        finally:
            await self._dialer.close()
            await asyncio.to_thread(self._exporter.close)

    def alive(self) -> bool:
        """Tell whether this process is worth keeping: its loop turns and its journal can be written."""
        turning = time.monotonic() - self._beat < LONGEST_LAG_SECONDS
        return turning and not (self._engine is not None and self._engine.store.failed.is_set())

    async def _serve(self, group: asyncio.TaskGroup, parts: list[asyncio.Task[None]]) -> None:
        await self._unless_stopping(agree(self._clock, self._kube.now_ms))
        engine = await self._unless_stopping(self._open())
        if engine is None:
            return
        if not await self._unless_stopping(self._synced()):
            await engine.store.close()
            return
        await self._recent.read_back(engine.store)
        self._policies.spent = engine.store.spent
        await engine.recover(self._run_objects())
        self._announce_recovery(engine)
        self._engine = engine
        self._catch_up(engine)
        parts += [
            group.create_task(_endless(part))
            for part in (
                self._reachability.run(),
                self._guardrails.run(),
                *(writer.run() for writer in self._server_statuses),
                self._policy_statuses.run(),
                self._engine_statuses.run(),
                self._serve_readers(engine),
                self._serve_hooks(),
                self._serve_steps(engine),
                self._publish_ca(),
                self._ports.renew(),
            )
        ]
        parts.append(group.create_task(self._forget_pods(engine)))
        _log.info("recovered and serving", extra={"store": engine.store.id})
        await engine.serve(self._stopping)

    async def _beside(self, calls: bool) -> Beside:
        """Return what stands beside containers of steps, as the Engine says now.

        Raises:
            Unreachable: a step that calls would not find the engine.
        """
        security = self._resources.engine.security
        isolation = security is None or security.require_network_isolation == "Required"
        beside = Beside(self._settings.image, self._settings.pull_policy, isolation)
        return replace(beside, engine=await self._own_address()) if calls else beside

    async def _own_address(self) -> EngineAddress:
        host = f"fairlead-engine.{self._settings.namespace}.svc"
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, STEPS_PORT, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Unreachable(0, f"{host} cannot be looked up: {error.strerror}") from error
        return EngineAddress(host, str(found[0][4][0]), STEPS_PORT, self._ports.ca_pem)

    async def _open(self) -> WorkflowEngine:
        def gate(clock: Callable[[], int], metrics: EngineMetrics) -> Gate:
            models = ModelCaller(self._dialer, self._resources)
            parts = (self._resources, self._authorizer, models, self._tools, clock, metrics)
            pods = PodRunner(self._kube, self._beside, self._calling, clock=self._clock)
            self._gate = Gate(*parts, recent=self._recent, creator=self._objects, on_rule=self._policies.did, pods=pods)
            return self._gate

        return await WorkflowEngine.open(
            self._place(),
            resources=self._resources,
            authorizer=self._authorizer,
            sink=self._sink,
            gate=gate,
            clock=self._clock,
            cluster=self._objects,
            desk=self._objects,
            exporter=self._exporter,
            metrics=self.metrics,
            announce=self._announce,
            options=EngineOptions(
                mountinfo=Path("/proc/self/mountinfo").read_text(encoding="utf-8"),
                on_waiting=self._on_waiting,
                on_rule=self._policies.did,
                on_taken=self._on_taken,
            ),
        )

    async def _synced(self) -> bool:
        """Return when the cluster was listed once."""
        await self._resources.synced()
        return True

    async def _unless_stopping(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what is waited for; None when the process is asked to stop before."""
        found, stopping = asyncio.create_task(waiting), asyncio.create_task(self._stopping.wait())
        await asyncio.wait((found, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if found.done():
            return await found
        found.cancel()
        await asyncio.gather(found, return_exceptions=True)
        return None

    def _place(self) -> Place:
        """Return where the journal is."""
        settings, file = self._settings, self._settings.database
        if file is None:
            return settings.data / "journal.db"
        return Postgres(Address(lambda: database_url(file), holder=settings.pod, namespace=settings.namespace))

    async def _recorded(self) -> None:
        """Return when the journal has what is counted: a replica that was replaced finds that out before it says so.

        Raises:
            StoreError: the journal is another one's by now.
        """
        if self._engine is not None:
            await self._engine.store.durable()

    def _on_waiting(self, error: StoreError) -> None:
        """Stand by while another replica owns the store; say on the Engine what else is in the way."""
        if str(error) == str(self._waiting):
            return
        self._waiting = error
        _log.info("the store is not ours yet: %s", error)
        if not isinstance(error, StoreLocked) and self._resources.engine_uid:
            head = {"name": "default", "uid": self._resources.engine_uid}
            self._emit(ENGINES, head, "StoreUnavailable", str(error), warning=True)

    def _ready(self) -> bool:
        """Tell whether it serves, or would if the replica that does went away."""
        standing_by = isinstance(self._waiting, StoreLocked)
        return (self._engine is not None or standing_by) and not self._stopping.is_set()

    async def _forget_pods(self, engine: WorkflowEngine) -> None:
        """Delete the pods of steps that an earlier process could not delete any more; older ones go with their run.

        One after the other, beside the work: there may be as many as steps in that time, and most are gone.
        """
        for name, uid in await engine.store.pods_left(self._clock() - LEFT_PODS_MS):
            with contextlib.suppress(KubeError):
                await self._kube.delete(PODS, name, self._settings.namespace, uid=uid)

    def _open_runs(self) -> list[RunLog | None]:
        return [run.log for run in self._engine.runs.roster.all()] if self._engine is not None else []

    def _run_objects(self) -> dict[RunUid, dict[str, Any]]:
        return {RunUid(obj["metadata"]["uid"]): obj for obj in self._resources.runs.objects.values()}

    def _catch_up(self, engine: WorkflowEngine) -> None:
        """Tell the engine what changed while it recovered, and everything that it never met."""
        objects = self._run_objects()
        for obj in objects.values():
            engine.runs.observe(obj)
        for run in engine.runs.roster.all():
            if run.uid not in objects:
                engine.runs.gone(run.uid)
        for _, name in list(self._resources.approvals.objects):
            engine.approvals.observe(name)

    def _on_run(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is not None and old is None:
            self._sink.seen(new["metadata"])
        if self._engine is None:
            return  # `recover` and `_catch_up` look at the informer themselves
        if new is not None:
            self._engine.runs.observe(new)
        elif old is not None:
            self._engine.runs.gone(RunUid(old["metadata"]["uid"]))

    def _announce(self, written: Written) -> None:
        head = {"name": written.name, "uid": written.uid}
        for item in news(written.before, written.after):
            self._emit(WORKFLOW_RUNS, head, item.reason, item.message, warning=item.warning)

    def _on_taken(self, workflow: Workflow, why: str) -> None:
        head = {"name": workflow.metadata.name, "uid": workflow.metadata.uid}
        self._emit(WORKFLOWS, head, "RunNameTaken", why, warning=True)

    def _announce_recovery(self, engine: WorkflowEngine) -> None:
        going_on = len(engine.runs.roster.all())
        if going_on and self._resources.engine_uid:
            head = {"name": "default", "uid": self._resources.engine_uid}
            self._emit(ENGINES, head, "Recovered", f"runs go on from the journal: {going_on}")

    def _emit(
        self, rt: ResourceType, head: dict[str, str], reason: str, message: str, *, warning: bool = False
    ) -> None:
        metadata = head | {"namespace": self._settings.namespace}
        obj = {"apiVersion": rt.api_version, "kind": rt.kind, "metadata": metadata}
        self._events.emit(obj, reason=reason, message=message, warning=warning)

    def _on_change(self, kind: str, name: str) -> None:
        if kind in ("Tool", "Model"):
            self._reachability.changed(kind, name)
        if kind == "Policy":
            self._policies.changed(name)
        if self._engine is not None and kind == "Approval":
            self._engine.approvals.observe(name)
        if self._engine is not None and kind in ("Workflow", "Tool", "Policy"):
            self._engine.workflow_changed([name] if kind == "Workflow" else list(self._resources.workflows))

    async def _serve_readers(self, engine: WorkflowEngine) -> None:
        application = readers(engine.store, self._tokens("view"), self._discover)
        await self._ports.serve(application, HTTPS_PORT)

    async def _serve_hooks(self) -> None:
        hooks = Hooks(
            self._resources,
            self._objects,
            callers=self._tokens("hooks"),
            user_may=self._authorizer.user_may,
        )
        await self._ports.serve(hooks.application(), HOOKS_PORT)

    async def _serve_steps(self, engine: WorkflowEngine) -> None:
        assert self._gate is not None
        started = await engine.store.pods_started(REMEMBERED, self._clock() - LEFT_PODS_MS)
        self._calling.refusals.attach(engine.store.refused, started)
        gateway = Gateway(self._calling, self._tokens(""), self._resources, self._gate.call)
        await self._ports.serve(gateway.application(), STEPS_PORT)

    async def _discover(self, name: str) -> Discovery | None:
        tool = self._resources.tools.get(name)
        return await self._tools.discover(name, tool) if tool is not None else None

    async def _serve_probes(self) -> None:
        application = probes(
            alive=self.alive,
            ready=self._ready,
            metrics=self.metrics.expose,
        )
        await self._ports.serve_plain(application, HTTP_PORT)

    def _tokens(self, use: str) -> Tokens:
        return Tokens(self._issuer, self._settings.namespace, use=use, now=self._clock)

    async def _issuer(self) -> Issuer:
        configuration = await self._kube.request("GET", "/.well-known/openid-configuration")
        accept = {"Accept": "application/jwk-set+json"}
        return Issuer.parse(configuration, await self._kube.request("GET", "/openid/v1/jwks", headers=accept))

    async def _publish_ca(self) -> None:
        """Put the public part of the CA where readers look; the operator makes the ConfigMap, perhaps later."""
        while True:
            body = {"data": {"ca.crt": self._ports.ca_pem}}
            try:
                await self._kube.patch(CONFIG_MAPS, CA_CONFIG_MAP, self._settings.namespace, body)
                await asyncio.sleep(CA_SECONDS)
            except KubeError as error:
                _log.warning("the CA is not published yet: %s", error)
                await asyncio.sleep(CA_RETRY_SECONDS)

    async def _measure_lag(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(LAG_SECONDS)


async def _nothing() -> None:
    """Nothing that stands in a Tool's or Model's status stands in the journal."""


async def _endless(part: Coroutine[Any, Any, None]) -> None:
    """Await a part that only ever ends by being cancelled.

    Raises:
        RuntimeError: it ended by itself.
    """
    name = str(part)
    await part
    raise RuntimeError(f"{name} ended")
