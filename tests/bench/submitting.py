"""Runs on a cluster as a client sees them: created, watched, and read back from the engine's journal."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.bench import workloads

from fairlead.api.conditions import is_true
from fairlead.api.meta import Condition
from fairlead.cli.access import Access
from fairlead.flow.journal import Entry
from fairlead.kube.client import Kube
from fairlead.kube.types import WORKFLOW_RUNS
from fairlead.kube.watch import Informer

LONGEST_RUN_SECONDS = 300.0
CREATORS = 16
"""As many connections create runs at once."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A run that has been created, and what becomes of it: when it was seen to have ended."""

    name: str
    uid: str
    submitted_at: float
    ended: asyncio.Future[float]


@dataclass(frozen=True, slots=True)
class Seen:
    """A run that has ended well. Times are Unix seconds of this machine's clock."""

    name: str
    uid: str
    submitted_at: float
    finished_at: float


class Submitter:
    """Creates runs and waits for what becomes of them.

    Attributes:
        writes: how often each run's object changed after its creation.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.writes: Counter[str] = Counter()
        self._ended: dict[str, asyncio.Future[float]] = {}

    async def run(self, workflow: str) -> Seen:
        """Execute one run.

        Raises:
            RuntimeError: it did not succeed; there is nothing to measure then.
            TimeoutError: it did not end.
        """
        run = await self._submit(workflow)
        return _seen(run, await asyncio.wait_for(run.ended, LONGEST_RUN_SECONDS))

    async def many(self, workflow: str, *, runs: int, at_once: int) -> list[Seen]:
        """Execute many runs, so many at a time."""
        left = iter(range(runs))
        seen: list[Seen] = []

        async def one_after_the_other() -> None:
            for _ in left:
                seen.append(await self.run(workflow))  # noqa: PERF401 - several of these share the iterator

        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
        return seen

    async def all_at_once(self, workflow: str, *, runs: int, longest_seconds: float) -> list[Seen]:
        """Create many runs as fast as the API server takes them, and wait until all have ended.

        Raises:
            RuntimeError: one did not succeed; or not all had ended in time, and how many had.
        """
        left, submitted = iter(range(runs)), list[Submitted]()

        async def one_after_the_other() -> None:
            for _ in left:
                submitted.append(await self._submit(workflow))

        try:
            async with asyncio.timeout(longest_seconds):
                await asyncio.gather(*(one_after_the_other() for _ in range(CREATORS)))
                finished = await asyncio.gather(*(run.ended for run in submitted))
        except TimeoutError as error:
            ended = sum(run.ended.done() and not run.ended.cancelled() for run in submitted)
            many = f"{runs} runs of {workflow}: {len(submitted)} were created and {ended} had ended"
            raise RuntimeError(f"{many} after {longest_seconds:.0f} s") from error
        return [_seen(run, at) for run, at in zip(submitted, finished, strict=True)]

    async def _submit(self, workflow: str) -> Submitted:
        """Create a run; it is urgent, since who measures does not measure how it holds back itself."""
        name = f"{workflow}-{uuid.uuid4().hex[:8]}"
        ended = self._ended[name] = asyncio.get_running_loop().create_future()
        path, run = WORKFLOW_RUNS.path(self.namespace), workloads.run(workflow, name)
        submitted_at = time.time()
        created = await self.kube.request("POST", path, body=run, urgent=True)
        return Submitted(name, created["metadata"]["uid"], submitted_at, ended)

    async def journal(self, run: Seen) -> list[Entry]:
        """Return a run's journal, as the command line reads it."""
        return await Access(self.kube, self.namespace).journal(run.uid)

    def changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        """Take note of a change that the watch tells."""
        if new is None:
            return
        name, status = new["metadata"]["name"], new.get("status", {})
        if old is not None:
            self.writes[name] += 1
        conditions = [Condition.model_validate(condition) for condition in status.get("conditions", ())]
        ended = self._ended.get(name)
        if ended is None or ended.done() or not is_true(conditions, "Finished"):
            return
        if is_true(conditions, "Succeeded"):
            ended.set_result(time.time())
        else:
            ended.set_exception(RuntimeError(f"the run {name} did not succeed: {status}"))


def _seen(run: Submitted, finished_at: float) -> Seen:
    return Seen(run.name, run.uid, run.submitted_at, finished_at)


@asynccontextmanager
async def submitting(namespace: str) -> AsyncIterator[Submitter]:
    """Connect with the kubeconfig of the environment and watch the runs of a namespace."""
    kube = await Kube.connect()
    submitter = Submitter(kube, namespace)
    informer = Informer(kube, WORKFLOW_RUNS, namespace=namespace, on_change=submitter.changed)
    watching = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        yield submitter
    finally:
        await kube.close()  # first: it cuts the watch off, which would else still take leave when the loop has ended
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
