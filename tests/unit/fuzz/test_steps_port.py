"""Whatever is sent to the port for containers: no crash, no allow, and only answers that docs/openapi-steps.yaml knows.

It goes to the real application, gate and fold, from the pod of an attempt that is under way, from pods that are not,
and from nobody. What may not be called is never dispatched.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from itertools import product
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
from tests.unit.engine.gatewayworld import ACCOUNT, HELLO, OFFERED, GatewayWorld

from fairlead.engine.bodies import MAX_BYTES
from fairlead.engine.gateway import openai
from fairlead.engine.pods import calling

ROOT = Path(__file__).parents[3]
DOCUMENT = yaml.safe_load((ROOT / "docs/openapi-steps.yaml").read_text(encoding="utf-8"))
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
FUZZ = settings(derandomize=True, database=None, deadline=None, max_examples=60, suppress_health_check=[*HealthCheck])
MOST = 1_000_000

GOOD = f"Bearer {ACCOUNT} pod-1"
STRANGERS = ["", "Bearer", "Bearer nothing", f"Bearer {ACCOUNT} pod-9", "Bearer system:serviceaccount:x:y pod-1"]
MODELS = ["small", "embedder", "other", ""]
TOOLS = ["tickets", "other", "\0", "..", "x" * 5000]
BODIES = [
    b"",
    b"{",
    b"[]",
    b"7",
    b'{"model": "small", "model": "other"}',
    b'{"model": "small", "messages": NaN}',
    b"[" * 10_000 + b"]" * 10_000,
    b'{"a": "\xff"}',
    "{}".encode("utf-16"),
    b" " * (MAX_BYTES + 1),
    json.dumps(HELLO).encode(),
    json.dumps(HELLO | {"model": "other"}).encode(),
    json.dumps({"model": "embedder", "input": ["a"]}).encode(),
    *(
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        for method, params in product(
            ["tools/call", "tools/list", "resources/list"],
            [
                {},
                {"name": "search", "arguments": {}},
                {"name": "drop"},
                {"name": 7},
                {"_meta": 1},
                {"name": "x" * 9999},
            ],
        )
    ),
]
TYPES = ["application/json", "text/plain", "multipart/form-data; boundary=x", ""]
NUMBERS = ["1", "0", "-1", "x", "9" * 400, ""]

T = TypeVar("T")


class Port:
    """The application over a container that is under way, in an event loop of its own."""

    def __init__(self) -> None:
        self.world = GatewayWorld(maxCalls=MOST)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.world.start())

    def send(self, path: str, method: str, body: bytes | None, **headers: str) -> httpx.Response:
        place = path.replace("/..", "/%2E%2E").replace("\0", "%00")
        return self._do(self.world.send(place, body, method=method, **headers))

    def close(self) -> None:
        self._do(self.world.end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


@pytest.fixture(scope="module")
def port() -> Iterator[Port]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calling, "ARRIVAL_SECONDS", 0.001)
        patch.setattr("fairlead.engine.pods.runner._FIRST_PAUSE_SECONDS", 0.01)
        found = Port()
        yield found
        found.close()


def answered(port: Port, path: str, tool: str, method: str, body: bytes | None, **headers: str) -> int:
    """Send a request, look at the answer and at what became of it, and return its status."""
    response = port.send(path.replace("{tool}", tool), method.upper(), body, **headers)
    assert response.status_code != 500, response.text
    case = SCHEMA[path][method.upper()].Case(path_parameters={"tool": tool})
    if response.status_code not in (404, 405):
        case.validate_response(schemathesis.Response.from_any(response), checks=CHECKS)
    while port.world.dispatched:
        call = port.world.dispatched.pop()
        assert headers["token"] == GOOD, "nobody but the pod calls anything"
        named = OFFERED["tools"][0]
        assert call.target in OFFERED["models"] or (call.target == "tickets" and call.function in named["functions"])
    if headers["token"] != GOOD:
        assert (response.status_code, response.content) in (
            (401, b'{"error":"Unauthenticated"}'),
            (403, b'{"error":"StaleAttempt"}'),
        )
    return response.status_code


def test_the_document_has_every_path_and_what_may_be_said(port: Port) -> None:
    routes = {
        (route.path, method.lower())  # type: ignore[attr-defined]
        for route in port.world.gateway.application().routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert routes == set(OPERATIONS)
    schemas = DOCUMENT["components"]["schemas"]
    assert (schemas["Chat"], schemas["Embeddings"]) == (openai.CHAT, openai.EMBEDDINGS)


@pytest.mark.requirement("A06", "A61")
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_the_document_allows_is_answered_as_it_says(port: Port, path: str, method: str) -> None:
    @FUZZ
    @given(st.data(), st.sampled_from([GOOD, *STRANGERS]), st.sampled_from(MODELS), st.sampled_from(TOOLS[:2]))
    def holds(data: st.DataObject, token: str, model: str, tool: str) -> None:
        case: Any = data.draw(SCHEMA[path][method.upper()].as_strategy())
        said = case.body | {"model": model} if isinstance(case.body, dict) and "model" in case.body else case.body
        body = json.dumps(said, default=str).encode() if method == "post" else None
        answered(port, path, tool, method, body, token=token)

    holds()


@pytest.mark.requirement("A06", "A28", "A30")
@pytest.mark.parametrize(("path", "method"), [one for one in OPERATIONS if one[1] == "post"])
def test_what_nobody_expects_crashes_nothing_and_gets_nobody_in(port: Port, path: str, method: str) -> None:
    reached = set()
    tools = TOOLS if "{tool}" in path else TOOLS[:1]
    for body, content_type, token, tool in product(BODIES, TYPES, [GOOD, STRANGERS[0], STRANGERS[3]], tools):
        said = {"content-type": content_type} if content_type else {}
        reached.add(answered(port, path, tool, method, body, token=token, **said))
    for number in NUMBERS:
        header = {"x-fairlead-call": number}
        reached.add(answered(port, path, "tickets", method, json.dumps(HELLO).encode(), token=GOOD, **header))
    assert reached >= {200, 400, 401, 403, 413, 415}
