"""Whatever is sent to an engine's ports: no crash, no allow, and only answers that docs/openapi.yaml knows.

schemathesis makes the requests, right and wrong ones, from the document. They go to the real applications over a real
store, with a good token, a bad one or none. What is open without one is named here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.applications import Starlette
from tests.unit.engine.hookworld import BODY, World, signed
from tests.unit.engine.test_endpoints import UID, Tokens, discover

from fairlead.engine.endpoints import probes, readers
from fairlead.engine.hooks import Hooks
from fairlead.engine.store import Store
from fairlead.flow.journal import Draft, EntryKind

ROOT = Path(__file__).parents[3]
DOCUMENT = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
OPEN = {"/healthz", "/readyz", "/metrics"}
CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
T = TypeVar("T")


class Ports:
    """The three applications of an engine, in an event loop of their own."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.hooks = World()
        self._do(self._open(folder))

    async def _open(self, folder: Path) -> None:
        self._store = await Store.open(folder / "journal.db", clock=lambda: 1000)
        self._store.begin(UID, namespace="team", name="w-1", workflow="w")
        self._store.append(UID, [Draft(EntryKind.RUN_ACCEPTED, data={"workflow": "w", "name": "w-1"})])
        await self._store.durable()
        port: Any = self.hooks
        triggers = Hooks(port.resources, port.cluster, callers=port, user_may=port.user_may)
        self.applications: dict[str, Starlette] = {
            "": probes(alive=lambda: True, ready=lambda: False, metrics=lambda: b"# TYPE x counter\n"),
            "/v1": readers(self._store, Tokens(), discover),  # type: ignore[arg-type]  # only verify() is used
            "/hooks": triggers.application(),
        }
        self._clients = {
            prefix: httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, raise_app_exceptions=True), base_url="https://engine"
            )
            for prefix, app in self.applications.items()
        }

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


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    found = Ports(tmp_path_factory.mktemp("ports"))
    yield found
    found.close()


def prefix_of(path: str) -> str:
    return next((prefix for prefix in ("/v1", "/hooks") if path.startswith(prefix)), "")


def test_the_document_has_every_path_and_no_other(ports: Ports) -> None:
    routes = {
        (route.path, method.lower())  # type: ignore[attr-defined]
        for app in ports.applications.values()
        for route in app.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert routes == set(OPERATIONS)


@pytest.mark.requirement("A06", "A30")
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[path for path, _ in OPERATIONS])
def test_no_request_crashes_a_port_and_none_gets_in_without_a_token(ports: Ports, path: str, method: str) -> None:
    @given(st.data(), st.sampled_from(["good", "good", "good", "bad", "", "away"]))
    @settings(max_examples=100, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
    def holds(data: st.DataObject, token: str) -> None:
        case: Any = data.draw(SCHEMA[path][method.upper()].as_strategy())
        known = {"uid": UID, "name": "tickets", "workflow": "w", "trigger": data.draw(st.sampled_from(TRIGGERS))}
        if data.draw(st.booleans()):
            case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
        if isinstance(case.body, dict) and data.draw(st.booleans()):
            case.body = BODY | case.body
        request = _request(case, token)
        if request is None:
            return
        before = len(ports.hooks.cluster.objects) + len(ports.hooks.cluster.signals)
        response = ports.send(prefix_of(path), request)
        case.validate_response(schemathesis.Response.from_any(response), checks=list(CHECKS))
        assert response.status_code in (200, 202, 400, 401, 403, 404, 409, 413, 415, 422, 503)
        if path not in OPEN and token != "good":
            assert response.status_code in (401, 404, 503), response.status_code
            assert len(ports.hooks.cluster.objects) + len(ports.hooks.cluster.signals) == before

    holds()


TRIGGERS = ["incident", "open", "called", "paid"]


def _request(case: Any, token: str) -> httpx.Request | None:
    """Return the request as it goes out: with this token, and signed by who has a good one."""
    made = case.as_transport_kwargs(base_url="https://engine")
    body = made.get("data") or b""
    if made.get("json") is not None:
        body = httpx.Request("POST", "https://engine", json=made["json"]).content
    content = body.encode() if isinstance(body, str) else bytes(body) if isinstance(body, bytes) else b""
    headers = {name: value for name, value in dict(made.get("headers") or {}).items() if value.isascii()}
    headers = {name: value for name, value in headers.items() if name.lower() not in ("x-signature", "authorization")}
    headers |= {"X-Fairlead-Token": token, "Content-Type": "application/json"} if token else {}
    headers |= {"X-Signature": signed(content)} if token == "good" else {}
    try:
        return httpx.Request(made["method"], made["url"], params=made.get("params"), content=content, headers=headers)
    except (httpx.InvalidURL, UnicodeEncodeError, ValueError):
        return None  # no client could send it
