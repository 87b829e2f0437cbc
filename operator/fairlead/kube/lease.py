"""Leader election by a Lease: of several processes with one name, one works and the others wait.

The holder renews; who waits watches the record and takes over when it has not changed for the Lease's duration *by
its own clock*, so skewed clocks do no harm. Every write carries the resourceVersion, so two cannot both win. A holder
that cannot renew in time stops its work and raises: the process ends, on doubt.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from fairlead.errors import Conflict, KubeError, LeaseLost, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.types import LEASES

_log = logging.getLogger(__name__)


class Lease:
    """One candidate for a Lease.

    `leading` tells whether this process holds it now. The defaults are those of Kubernetes' own controllers: others
    may take over 15 s after the last renewal, and the holder gives up 10 s after it, so that they never overlap.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        name: str,
        namespace: str,
        identity: str,
        duration_seconds: float = 15.0,
        renew_within_seconds: float = 10.0,
        retry_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is asked before `run`.

        Args:
            kube: the client.
            name: the Lease's name, the same for all candidates.
            namespace: where the Lease is.
            identity: unlike that of every other candidate, for example the pod's name.
            duration_seconds: after the last change of the record others may take over.
            renew_within_seconds: after the last renewal the holder gives up; less than the duration.
            retry_seconds: between two tries to get or to renew it.
            clock: monotonic seconds.
        """
        self.leading = False
        self._kube = kube
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._duration_seconds = duration_seconds
        self._renew_within_seconds = renew_within_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._renewed_at = float("-inf")
        # The record as last seen, and when it was first seen so.
        self._seen_version = ""
        self._seen_at = 0.0

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then do `work` while holding it; give it back when `work` ends.

        Raises:
            LeaseLost: somebody else holds it, or it could not be renewed in time. `work` was cancelled before.
        """
        record, self._renewed_at = await self._acquire()
        self.leading = True
        _log.info("leading: %s/%s as %s", self._namespace, self._name, self._identity)
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(record))
        lost = False
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            lost = renewing.done()
        finally:
            self.leading = False
            renewing.cancel()
            await self._stop(working)
            if working.done() and not lost:
                await self._release()
        await (renewing if lost else working)

    def check(self) -> None:
        """Return if nobody else can lead yet. Asked before each write: a process that stood still does not know it.

        Raises:
            LeaseLost: others may lead.
        """
        late = self._clock() - self._renewed_at
        if not self.leading or late >= self._renew_within_seconds:
            raise LeaseLost(f"the lease {self._name} was not renewed for {late:.1f} s")

    async def _stop(self, working: asyncio.Future[None]) -> None:
        """Cancel the work, and wait for it no longer than nobody else can lead yet."""
        if not working.done():
            working.cancel()
            await asyncio.wait((working,), timeout=self._duration_seconds - self._renew_within_seconds)

    async def _acquire(self) -> tuple[dict[str, Any], float]:
        """Return the record and when it was sent, once it is ours."""
        while True:
            asked_at = self._clock()
            try:
                record = await self._try_to_acquire()
            except KubeError as error:
                _log.warning("cannot get the lease %s yet: %s", self._name, error)
                record = None
            if record is not None:
                return record, asked_at
            await asyncio.sleep(self._retry_seconds)

    async def _try_to_acquire(self) -> dict[str, Any] | None:
        try:
            record = await self._kube.get(LEASES, self._name, self._namespace)
        except NotFound:
            body = {"metadata": {"name": self._name, "namespace": self._namespace}, "spec": self._spec(transitions=0)}
            return await self._write("POST", LEASES.path(self._namespace), body)
        if self._is_held_by_another(record):
            return None
        transitions = int(record.get("spec", {}).get("leaseTransitions", 0)) + 1
        return await self._write("PUT", self._path, record | {"spec": self._spec(transitions=transitions)})

    def _is_held_by_another(self, record: dict[str, Any]) -> bool:
        """Tell whether somebody else holds it and has been heard of, by our clock, within the duration it claims."""
        spec = record.get("spec", {})
        if spec.get("holderIdentity", "") in ("", self._identity):
            return False
        if record["metadata"]["resourceVersion"] != self._seen_version:
            self._seen_version = record["metadata"]["resourceVersion"]
            self._seen_at = self._clock()
        return self._clock() - self._seen_at < float(spec.get("leaseDurationSeconds", self._duration_seconds))

    async def _renew(self, record: dict[str, Any]) -> None:
        """Renew until that fails.

        Raises:
            LeaseLost: always, in the end.
        """
        while True:
            await asyncio.sleep(self._retry_seconds)
            asked_at = self._clock()
            left_seconds = self._renewed_at + self._renew_within_seconds - asked_at
            if left_seconds <= 0:
                raise LeaseLost(f"the lease {self._name} could not be renewed for {asked_at - self._renewed_at:.1f} s")
            try:
                async with asyncio.timeout(left_seconds):
                    record = await self._renew_once(record)
                self._renewed_at = asked_at
            except (KubeError, TimeoutError) as error:
                _log.warning("cannot renew the lease %s: %s", self._name, error or "no answer")

    async def _renew_once(self, record: dict[str, Any]) -> dict[str, Any]:
        transitions = int(record["spec"].get("leaseTransitions", 0))
        acquired = record["spec"].get("acquireTime")
        body = record | {"spec": self._spec(transitions=transitions, acquired=acquired)}
        try:
            return await self._write("PUT", self._path, body)
        except (Conflict, NotFound):
            # Perhaps our own write arrived and its answer did not: read who holds it.
            try:
                record = await self._kube.get(LEASES, self._name, self._namespace)
            except NotFound:
                raise LeaseLost(f"the lease {self._name} was deleted") from None
            holder = record.get("spec", {}).get("holderIdentity")
            if holder != self._identity:
                raise LeaseLost(f"the lease {self._name} is held by {holder or 'nobody'}") from None
            return record

    async def _release(self) -> None:
        """Let the next one start at once. Nothing is lost when this fails: the record expires."""
        try:
            record = await self._kube.get(LEASES, self._name, self._namespace)
            if record.get("spec", {}).get("holderIdentity") == self._identity:
                await self._write("PUT", self._path, record | {"spec": record["spec"] | {"holderIdentity": ""}})
        except KubeError as error:
            _log.warning("cannot give back the lease %s: %s", self._name, error)

    @property
    def _path(self) -> str:
        return LEASES.path(self._namespace, self._name)

    async def _write(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, **body}
        answer = await self._kube.request(method, path, body=body, urgent=True)
        return dict(answer)

    def _spec(self, *, transitions: int, acquired: str | None = None) -> dict[str, Any]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")  # for people: nobody compares it
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._duration_seconds)),
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }
