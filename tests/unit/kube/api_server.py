"""A small API server on loopback that answers what a test tells it, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client.configuration import Configuration

from fairlead.kube.client import Kube

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class FakeApiServer:
    """Answers each request with the next handler; with the last one for ever."""

    asked: list[Asked] = field(default_factory=list)
    handlers: deque[Handler] = field(default_factory=deque)

    def answers(self, *handlers: Handler) -> None:
        """Set what is answered, in this order; the last one is repeated."""
        self.handlers = deque(handlers)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        text = await request.text()
        body = json.loads(text) if text else None
        self.asked.append(Asked(request.method, request.path, dict(request.query), dict(request.headers), body))
        handler = self.handlers[0] if len(self.handlers) == 1 else self.handlers.popleft()
        return await handler(request)


@asynccontextmanager
async def serving(api: FakeApiServer | Handler, **options: Any) -> AsyncIterator[Kube]:
    """Serve, and yield a client of it; `options` go to Kube."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle if isinstance(api, FakeApiServer) else api)
    async with TestServer(app) as server:
        configuration = Configuration()
        configuration.host = str(server.make_url(""))
        configuration.api_key["BearerToken"] = "Bearer let-me-in"
        kube = Kube(configuration, **options)
        try:
            yield kube
        finally:
            await kube.close()


def answer(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """Answer with JSON."""

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return handler


def failure(status: int, message: str = "no", headers: dict[str, str] | None = None) -> Handler:
    """Answer with a Status, as the API server words its errors."""
    return answer({"kind": "Status", "code": status, "message": message}, status=status, headers=headers)


def page(items: Iterable[dict[str, Any]], version: str, more: str = "") -> Handler:
    """Answer a list request with one chunk."""
    metadata = {"resourceVersion": version} | ({"continue": more} if more else {})
    return answer({"kind": "ConfigMapList", "metadata": metadata, "items": list(items)})


def stream(*events: dict[str, Any], then: str = "hang") -> Handler:
    """Answer a watch with events; then `hang` in silence, `end` as agreed or `drop` the connection."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for event in events:
            await response.write(json.dumps(event).encode() + b"\n")
        if then == "hang":
            await asyncio.Event().wait()
        if then == "drop":
            assert request.transport is not None
            request.transport.abort()
        return response

    return handler


def config_map(name: str, version: int, **changes: Any) -> dict[str, Any]:
    """A ConfigMap in namespace `team`."""
    metadata = {"namespace": "team", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata | changes}


def event(kind: str, obj: dict[str, Any]) -> dict[str, Any]:
    """A watch event."""
    return {"type": kind, "object": obj}


def bookmark(version: int) -> dict[str, Any]:
    """A bookmark: nothing happened up to this version."""
    return event("BOOKMARK", {"kind": "ConfigMap", "metadata": {"resourceVersion": str(version)}})
