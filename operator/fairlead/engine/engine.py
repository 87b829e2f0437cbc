"""The engine put together: what a cluster and local mode have in common. Everything else plugs into it.

`cluster.py` feeds it from informers; local mode feeds it from files. Both bring the three seams of `seams.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fairlead.api.workflow import Workflow
from fairlead.engine.approvals import Approvals
from fairlead.engine.authorized import Authorizations
from fairlead.engine.children import Children
from fairlead.engine.counts import Counts
from fairlead.engine.definitions import WorkflowStatuses
from fairlead.engine.driver import Caller
from fairlead.engine.policies import Did
from fairlead.engine.reporter import Reporter
from fairlead.engine.retention import Sweeper
from fairlead.engine.roster import Roster
from fairlead.engine.runner import Runner
from fairlead.engine.runs import RunOptions, Runs
from fairlead.engine.schedules import Schedules
from fairlead.engine.seams import ApprovalDesk, Authorizer, Cluster, Resources, StatusSink
from fairlead.engine.status import StatusWriter, Written
from fairlead.engine.store import Place, Store
from fairlead.errors import StoreError
from fairlead.flow.journal import Entry, RunUid
from fairlead.flow.state import RunState
from fairlead.telemetry.export import SpanExporter
from fairlead.telemetry.metrics import EngineMetrics

DRAIN_SECONDS = 30.0
SETTLE_SECONDS = 2.0
WORKFLOW_STATUS_SECONDS = 5.0
ANCHOR_SECONDS = 3600.0
AUDIT_MS = 90 * 86_400_000
"""How long the audit of a run is kept after its last record, once its journal is gone."""

_log = logging.getLogger(__name__)


class GateMaker(Protocol):
    """Makes the gate: real callers on a cluster and in local mode, scripted ones in tests."""

    def __call__(self, clock: Callable[[], int], metrics: EngineMetrics) -> Caller:
        """Return the one way out."""
        ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        runs: bounds of runs.
        mountinfo: the text of /proc/self/mountinfo where network file systems must be refused; "" to not look.
        sync_delay_seconds: added to every commit, for benchmarks.
        on_waiting: told why the store is not opened yet, where it is waited for.
        on_rule: told of a Policy what its rules did about a run.
        on_taken: told of a Workflow why the run of a schedule is not made.
    """

    runs: RunOptions = field(default_factory=RunOptions)
    mountinfo: str = ""
    sync_delay_seconds: float = 0.0
    on_waiting: Callable[[StoreError], None] = lambda error: None
    on_rule: Callable[[str, Did], None] = lambda policy, did: None
    on_taken: Callable[[Workflow, str], None] = lambda workflow, why: None


class WorkflowEngine:
    """One durable engine on one store.

    Usage::

        engine = await WorkflowEngine.open(store_path, resources=..., authorizer=..., sink=..., gate=..., clock=...)
        await engine.recover(objects)          # before anything else
        serving = asyncio.create_task(engine.serve(stop))
        state = await engine.submit(run_object)
        stop.set()
        await serving

    Attributes:
        store: the journal.
        runs: all open runs; tell it of WorkflowRuns with `observe` and `gone`.
        approvals: what open runs wait for; tell it of Approvals with `observe`.
        authorizations: whether Workflows' accounts have what they need; tell it what `changed`.
        sweeper: deletes what has ended and is no longer kept; None without a cluster.
        schedules: makes runs when they are due; None without a cluster.
        metrics: Prometheus collectors.
        recovered: set once recovery is complete.
    """

    def __init__(
        self,
        store: Store,
        *,
        resources: Resources,
        authorizer: Authorizer,
        sink: StatusSink,
        gate: Caller,
        cluster: Cluster | None,
        desk: ApprovalDesk,
        exporter: SpanExporter,
        metrics: EngineMetrics,
        clock: Callable[[], int],
        announce: Callable[[Written], None],
        options: EngineOptions,
    ) -> None:
        """Put the parts together; use `open`."""
        roster = Roster(metrics)
        self.store = store
        self.metrics = metrics
        self.recovered = asyncio.Event()
        self._resources = resources
        self._announce = announce
        self._statuses = StatusWriter("WorkflowRun", sink, durable=store.durable, on_write=self._on_write)
        self._clock = clock
        self._workflow_writer = StatusWriter("Workflow", sink, durable=store.durable)
        self._approval_writer = StatusWriter("Approval", sink, durable=store.durable)
        reporter = Reporter(
            roster,
            self._statuses,
            exporter,
            metrics,
            store_id=store.id,
            audit_head=store.audit_head,
            clock=clock,
        )
        store.subscribe(reporter.committed)
        children = Children(store, roster)
        store.subscribe(children.committed)
        self.approvals = Approvals(roster, desk, self._approval_writer, namespace=resources.namespace, clock=clock)
        store.subscribe(self.approvals.committed)
        self.authorizations = Authorizations(
            resources,
            authorizer,
            waited_for=lambda workflow: bool(roster.waiting_for(workflow)),
            on_verdict=self._on_verdict,
        )
        runner = Runner(
            store,
            resources=resources,
            cluster=cluster,
            gate=gate,
            children=children,
            approvals=self.approvals,
            reporter=reporter,
            clock=clock,
            counts=Counts(metrics, options.on_rule),
        )
        self._flows = runner.flows
        self.runs = Runs(
            store,
            resources=resources,
            runner=runner,
            authorization=self.authorizations.of,
            roster=roster,
            children=children,
            approvals=self.approvals,
            reporter=reporter,
            clock=clock,
            options=options.runs,
        )
        self.sweeper = (
            Sweeper(store, resources=resources, cluster=cluster, roster=roster, clock=clock) if cluster else None
        )
        self._workflows = WorkflowStatuses(
            resources, roster, self.authorizations, self._flows, self._workflow_writer, clock=clock
        )
        self.schedules = (
            Schedules(
                store,
                resources=resources,
                cluster=cluster,
                on_made=self._workflows.mark,
                on_taken=options.on_taken,
                clock=clock,
            )
            if cluster
            else None
        )

    @classmethod
    async def open(
        cls,
        place: Place,
        *,
        resources: Resources,
        authorizer: Authorizer,
        sink: StatusSink,
        gate: GateMaker,
        clock: Callable[[], int],
        desk: ApprovalDesk,
        cluster: Cluster | None = None,
        exporter: SpanExporter | None = None,
        metrics: EngineMetrics | None = None,
        announce: Callable[[Written], None] = lambda written: None,
        options: EngineOptions | None = None,
    ) -> WorkflowEngine:
        """Open the store and put an engine on it.

        Args:
            place: the database file, whose directory exists; or a backend.
            resources: what is declared.
            authorizer: who decides about permissions.
            sink: where statuses go.
            gate: makes the one way out.
            clock: Unix time in ms.
            desk: where people are asked.
            cluster: the objects around runs; None in local mode.
            exporter: where spans go; none by default.
            metrics: collectors; new ones by default.
            announce: told of every status of a run that was written.
            options: bounds.

        Raises:
            StoreLocked: another process has the store.
            StoreError: it cannot be opened.
        """
        metrics, options = metrics or EngineMetrics(), options or EngineOptions()
        store = await Store.open(
            place,
            clock=clock,
            mountinfo=options.mountinfo,
            sync_delay_seconds=options.sync_delay_seconds,
            on_commit_seconds=metrics.journal_commit_seconds.observe,
            on_waiting=options.on_waiting,
        )
        return cls(
            store,
            resources=resources,
            authorizer=authorizer,
            sink=sink,
            gate=gate(clock, metrics),
            cluster=cluster,
            desk=desk,
            exporter=exporter or SpanExporter(None),
            metrics=metrics,
            clock=clock,
            announce=announce,
            options=options,
        )

    def subscribe(self, committed: Callable[[Sequence[Entry]], None]) -> None:
        """Call `committed` after every commit with its entries, in order: live progress."""
        self.store.subscribe(committed)

    def submit(self, run: Mapping[str, Any]) -> asyncio.Future[RunState]:
        """Take a WorkflowRun object (with a UID) and return the future of its last state."""
        ended = self.runs.end_of(RunUid(run["metadata"]["uid"]))
        self.runs.observe(run)
        return ended

    async def recover(self, objects: Mapping[RunUid, Mapping[str, Any]]) -> None:
        """Take over what an earlier process left; see `Runs.recover`."""
        await self.runs.recover(objects)
        self.recovered.set()

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then begin nothing more, let recorded calls finish, and close the store.

        Raises:
            ExceptionGroup: a part died, of a StoreError when the journal cannot be written. The process must end.
        """
        parts = asyncio.create_task(self._parts())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({parts, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not parts.done():
                await self.runs.drain(DRAIN_SECONDS)
                await self._statuses.settle(SETTLE_SECONDS)
        finally:
            self.runs.roster.abandon()
            stopping.cancel()
            parts.cancel()
            (died,) = await asyncio.gather(parts, return_exceptions=True)
            await self.store.close()
        if isinstance(died, Exception):
            raise died

    async def _parts(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.runs.run())
            group.create_task(self.authorizations.run())
            group.create_task(self._statuses.run())
            group.create_task(self._workflow_writer.run())
            group.create_task(self._approval_writer.run())
            group.create_task(self.approvals.run())
            group.create_task(self._mark_workflows())
            group.create_task(self._keep_audit())
            group.create_task(self._end_with_the_store())
            if self.sweeper is not None:
                group.create_task(self.sweeper.run())
            if self.schedules is not None:
                group.create_task(self.schedules.run())

    def workflow_changed(self, names: Sequence[str]) -> None:
        """Take note that Workflows, or what they name, changed."""
        self._flows.changed()
        self.authorizations.changed(names)
        for name in names:
            self.runs.workflow_changed(name)
        if self.schedules is not None:
            self.schedules.changed()

    def _on_verdict(self, workflow: str) -> None:
        self.runs.workflow_changed(workflow)
        self._workflows.mark(workflow)

    async def _mark_workflows(self) -> None:
        while True:
            await asyncio.sleep(WORKFLOW_STATUS_SECONDS)
            self._workflows.mark_touched()

    async def _keep_audit(self) -> None:
        """Every hour: anchor the chains that grow, say how far the anchors go, and let go of what is old."""
        while True:
            await asyncio.sleep(ANCHOR_SECONDS)
            end = self.store.anchor()
            self.store.prune_audit(self._clock() - AUDIT_MS)
            _log.info("the audit is anchored", extra={"anchors": end.records, "head": end.head})

    async def _end_with_the_store(self) -> None:
        await self.store.failed.wait()
        raise StoreError("the journal cannot be written")

    def _on_write(self, written: Written) -> None:
        self.metrics.status_writes.labels(written.turn).inc()
        self._announce(written)
