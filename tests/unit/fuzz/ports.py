"""The three ports of an engine for tests: the real applications over a store with runs, in an event loop of their own.

The store is on SQLite or PostgreSQL, which do not mind the same things, or is one that cannot be read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx
from starlette.applications import Starlette
from tests.unit.engine.hookworld import World
from tests.unit.engine.test_endpoints import DIGEST, LARGE, UID, Tokens, discover

from fairlead.engine.endpoints import probes, readers
from fairlead.engine.store import Place, Store
from fairlead.flow.journal import Draft, EntryKind, Path, RunUid

OPEN_UID = RunUid("7f0c6c1e-0000-4000-8000-000000000002")
CALL = {"index": "0", "kind": "Tool", "target": "tickets", "function": "look"}
ASKED = {"name": "w-1-a", "index": ""}
ENTRIES = [
    Draft(EntryKind.RUN_ACCEPTED, data={"workflow": "w", "name": "w-1", "account": "a", "requestedBy": "alice"}),
    Draft(EntryKind.STEP_STARTED, Path("a"), 1),
    Draft(EntryKind.CALL_INTENT, Path("a"), 1, CALL | {"digest": DIGEST, "effect": "Read"}),
    Draft(EntryKind.CALL_OUTCOME, Path("a"), 1, {"index": "0", "status": "Succeeded", "result": 1, "durationMs": 3}),
    Draft(
        EntryKind.CALL_DENIED, Path("a"), 1, CALL | {"index": "1", "reason": "Denied", "stage": "rbac", "message": "no"}
    ),
    Draft(EntryKind.APPROVAL_REQUESTED, Path("a"), 1, ASKED | {"spec": {}, "expiresAt": 2000}),
    Draft(EntryKind.APPROVAL_DECIDED, Path("a"), 1, ASKED | {"decision": "Approved", "by": ["bob"], "reason": ""}),
    Draft(EntryKind.STEP_SUCCEEDED, Path("a"), 1, {"output": LARGE}),
    Draft(EntryKind.RUN_SUCCEEDED, data={"output": 1}),
]
KNOWN = {"uid": UID, "digest": DIGEST, "name": "tickets", "workflow": "w"}
"""What parameters of paths name, where something is there."""

T = TypeVar("T")


class Ports:
    """The applications by the beginning of their paths; `hooks` is what stands behind the triggers."""

    def __init__(self, place: Place, *, readable: bool) -> None:
        self.readable = readable
        self.hooks = World()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._open(place))

    async def _open(self, place: Place) -> None:
        self._store = await Store.open(place, clock=lambda: 1000)
        for uid, name in ((UID, "w-1"), (OPEN_UID, "w-2")):
            self._store.begin(uid, namespace="team", name=name, workflow="w")
        self._store.append(UID, ENTRIES)
        self._store.append(OPEN_UID, ENTRIES[:1])
        await self._store.durable()
        if not self.readable:
            await self._store.close()
        self.applications: dict[str, Starlette] = {
            "": probes(alive=lambda: True, ready=lambda: False, metrics=lambda: b"# TYPE x counter\n"),
            "/v1": readers(self._store, Tokens(), discover),  # type: ignore[arg-type]  # only verify() is used
            "/hooks": self.hooks.application,
        }
        self._clients = {
            prefix: httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, raise_app_exceptions=True), base_url="https://engine"
            )
            for prefix, app in self.applications.items()
        }

    @property
    def made(self) -> int:
        """Return how much triggers have made so far."""
        return len(self.hooks.cluster.objects) + len(self.hooks.cluster.signals)

    def send(self, prefix: str, request: httpx.Request) -> httpx.Response:
        return self._do(self._clients[prefix].send(request))

    def close(self) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for client in [*self._clients.values(), self.hooks.client]:
            await client.aclose()
        await self._store.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)
