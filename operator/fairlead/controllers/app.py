"""The operator as a whole: built once, leads while it holds the Lease, ends when any part of it does.

    kopf watches --> handlers --> WorkQueue --> workers --> Reconciler --> API server
    Resync (every minute) ----------^

Crash on doubt: no part may end quietly. A lost Lease, a dead watch or a failed task ends the process, and a new one
starts from what the cluster says.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any, cast

import kopf

from fairlead.controllers.handlers import enqueue_affected, kopf_registry, kopf_settings
from fairlead.controllers.observed import Observed
from fairlead.controllers.probes import probe_application, probe_server
from fairlead.controllers.queue import Key, WorkQueue
from fairlead.controllers.reconcile import Reconciler
from fairlead.controllers.resync import Resync
from fairlead.controllers.settings import Settings
from fairlead.errors import KubeError, LeaseLost
from fairlead.kube.client import Kube
from fairlead.kube.events import EventRecorder
from fairlead.kube.lease import Lease
from fairlead.telemetry.metrics import OperatorMetrics

LEASE = "fairlead-operator"
OVERDUE_SECONDS = 300.0
UNSEEN_SECONDS = 600.0

_log = logging.getLogger(__name__)


class App:
    """Everything that one operator process has."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        clock = time.monotonic
        self.metrics = OperatorMetrics()
        self._kube = kube
        self._settings = settings
        self._clock = clock
        self._observed = Observed()
        self._queue = WorkQueue(clock=clock)
        self._events = EventRecorder(kube, component="fairlead-operator", instance=settings.identity)
        self._reconciler = Reconciler(kube, self._observed, settings, self._events, clock=clock)
        self._resync = Resync(kube, self._observed, self._queue, self._reconciler, clock=clock)
        self._lease = Lease(kube, name=LEASE, namespace=settings.namespace, identity=settings.identity)
        kube.may_write = self._lease.check
        self._stopping = asyncio.Event()
        enqueue_affected(self._observed, self._queue)

    async def run(self) -> None:
        """Serve probes, and lead whenever it is this process' turn, until SIGTERM.

        Raises:
            Exception: a part of the operator died; the process shall end with an error.
        """
        self._listen_for_signals()
        server = probe_server(probe_application(trouble=self.trouble, metrics=self.metrics), port=self._settings.port)
        serving = asyncio.create_task(server.serve(), name="probes")
        leading = asyncio.create_task(self._lease.run(self._lead), name="lease")
        stopping = asyncio.create_task(self._stopping.wait(), name="stop")
        await asyncio.wait((serving, leading, stopping), return_when=asyncio.FIRST_COMPLETED)
        if self._stopping.is_set() and self._lease.leading:
            await leading  # `_lead` returns, and the Lease is given back
        for task in (serving, leading, stopping):
            if task.done() and not task.cancelled():
                task.result()  # what it died of
            task.cancel()
        if not self._stopping.is_set():
            raise RuntimeError("the probes' server ended")

    def trouble(self) -> str:
        """Return what is wrong with this process, "" if nothing is. Who only waits for the Lease is well."""
        if not self._lease.leading:
            return ""
        unseen = self._clock() - self._resync.last_seen
        if unseen > UNSEEN_SECONDS:
            return f"nothing was listed for {unseen:.0f} s"
        overdue = self._queue.overdue_seconds()
        return f"a key has waited for {overdue:.0f} s" if overdue > OVERDUE_SECONDS else ""

    async def _lead(self) -> None:
        self.metrics.leader.set(1)
        # Nothing is judged by half a picture: first everything is read, then the workers start.
        await self._resync.once(spread_seconds=0.0)
        watching = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(_endless(part))
                for part in (
                    self._resync.run(interval_seconds=self._settings.resync_seconds),
                    self._events.run(),
                    self._measure(),
                    *(self._work() for _ in range(self._settings.workers)),
                    self._watch(watching),
                )
            ]
            await watching.wait()
            self._listen_for_signals()  # kopf installed its own
            await self._stopping.wait()
            for part in parts:
                part.cancel()

    async def _watch(self, watching: asyncio.Event) -> None:
        await kopf.operator(
            registry=kopf_registry(self._observed),
            settings=kopf_settings(),
            # Otherwise kopf asks for the name of the user, and this one has none.
            identity=cast(Any, self._settings.identity),
            standalone=True,
            clusterwide=True,
            ready_flag=watching,
        )

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            started = self._clock()
            result = await self._reconcile(key)
            self.metrics.reconcile.labels(key.kind, result).inc()
            self.metrics.reconcile_seconds.labels(key.kind).observe(self._clock() - started)

    async def _reconcile(self, key: Key) -> str:
        """Reconcile one key and give it back to the queue. One bad object never stops the others."""
        try:
            again_seconds = await self._reconciler.reconcile(key)
        except KubeError as error:
            delay = self._queue.retry(key, at_least_seconds=error.retry_after_seconds or 0.0)
            _log.log(
                logging.INFO if error.retryable else logging.WARNING,
                "%s %s/%s: %s; again in %.1f s",
                *(key.kind, key.namespace, key.name, error, delay),
            )
            return error.reason
        except LeaseLost:
            raise
        except Exception:
            # The boundary between one object and the process: what we did not foresee is logged and tried again later.
            delay = self._queue.retry(key)
            _log.exception("%s %s/%s: again in %.1f s", key.kind, key.namespace, key.name, delay)
            return "Internal"
        self._queue.done(key)
        if again_seconds is not None:
            self._queue.add(key, delay_seconds=again_seconds)
        return "ok"

    async def _measure(self) -> None:
        """Keep the gauge of the queue's depth; a kind without keys is 0, not absent."""
        kinds: set[str] = set()
        while True:
            waiting = self._queue.waiting()
            kinds |= set(waiting)
            for kind in kinds:
                self.metrics.queue_depth.labels(kind).set(waiting.get(kind, 0))
            await asyncio.sleep(1)

    def _listen_for_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)


async def _endless(part: Coroutine[Any, Any, None]) -> None:
    """Run what must not end.

    Raises:
        RuntimeError: it ended.
    """
    await part
    raise RuntimeError(f"{part!r} ended")
