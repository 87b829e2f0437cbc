"""Whatever is sent to an engine's ports: no crash, no allow, and only answers that docs/openapi.yaml knows.

schemathesis makes requests from the document. What it would not think of - names with NUL, numbers that no database
holds, two content types, a slash too many - is sent as well, all of it in every combination that matters. It goes to
the real applications over real stores, from who has a good token and signature, bad ones, ones that cannot be verified,
or none. What has to be reached at least is named, so that a port that refuses everything does not look safe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.unit.engine.hookworld import BODY, signed
from tests.unit.engine.test_endpoints import UID
from tests.unit.fuzz.ports import KNOWN, Ports

from fairlead.engine import endpoints
from fairlead.engine.audit.records import AuditType
from fairlead.engine.bodies import MAX_BYTES
from fairlead.engine.store.postgres import Address, Postgres
from fairlead.engine.store.rows import OPEN
from fairlead.flow.journal import TERMINAL, EntryKind

ROOT = Path(__file__).parents[3]
DOCUMENT = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text(encoding="utf-8"))
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]
READS = [(path, method) for path, method in OPERATIONS if path.startswith(("/v1/runs", "/v1/audit"))]
ON_SQLITE = [("sqlite", *case) for case in OPERATIONS]
ON_OTHERS = [(store, *case) for store in ("postgres", "unreadable") for case in READS]
CHECKS = (
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
FUZZ = settings(derandomize=True, database=None, suppress_health_check=[*HealthCheck])

SENDERS = ["good", "bad", "away", ""]
TRIGGERS = ["incident", "open", "called", "paid", "other"]
NAMES = ["\0", f"{UID}\0", "none", "..", "a/b", "%00", "\u0661", "x" * 5000, "' or 1=1 --"]
PLACES = ["0,,0", f"1000,{UID},1", "1000,~,0", f"{2**63 - 1},,{2**63 - 1}"]
PLACES += [f"{2**63},,0", f"0,,{2**63}", f"-{2**70},,0", f"{'9' * 5000},,0", "0,\0,0", "soon", ""]
JSON = ["application/json"]
TYPES = [JSON, [*JSON, "text/plain"], ["text/plain", *JSON], ["text/plain"], []]
WANTED = json.dumps(BODY | {"run": "w-1"}).encode()
BODIES = [WANTED, b"", b"{}", b"{", b'{"id": 1, "id": 2}', b"NaN", b"1e999", b'"\xff"', b'"\\ud800"', b"[" * 100_000]
BODIES += [b" " * (MAX_BYTES + 1)]

OF_A_NAME = {200, 401, 404, 503}
REACHED = {
    "/healthz": {200},
    "/readyz": {503},
    "/metrics": {200},
    "/v1/runs": {200, 401, 503},
    "/v1/audit": {200, 400, 401, 503},
    "/v1/audit/anchors": {200, 401, 503},
    "/hooks/{workflow}/{trigger}": {200, 202, 400, 401, 403, 404, 413, 415, 422},
}
"""What is met, all in all; of a path that names something it is OF_A_NAME."""

NOBODY = b'{"error":"Unauthenticated"}'
AWAY = b'{"error":"Unavailable"}'
NOT_FOUND = b'{"error":"NotFound"}'
REFUSED = {(401, NOBODY), (404, NOT_FOUND)}
NOWHERE = {(404, NOT_FOUND), (405, b'{"error":"MethodNotAllowed"}')}


@dataclass(frozen=True)
class Sent:
    """A request. Who is `good` signs it as well; `may` tells whether the owner of a good token has `invoke`."""

    sender: str
    names: Mapping[str, str]
    query: Mapping[str, Any]
    body: bytes = b""
    types: Sequence[str] = field(default_factory=lambda: JSON)
    may: bool = True

    def to(self, path: str, method: str) -> httpx.Request:
        place = path.format(**{name: _escaped(value) for name, value in self.names.items()})
        query = urlencode(self.query, doseq=True, errors="replace")
        headers = [("Host", "elsewhere.example"), *(("Content-Type", said) for said in self.types)]
        headers += [("X-Fairlead-Token", self.sender)] if self.sender else []
        headers += [("X-Signature", signed(self.body) if self.sender == "good" else f"v1={self.sender}")]
        return httpx.Request(method.upper(), f"https://engine{place}?{query}", content=self.body, headers=headers)


@pytest.fixture(scope="module")
def ports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    folder = tmp_path_factory.mktemp("ports")
    place: Any = folder / "journal.db"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_server").empty(str(folder))
        place = Postgres(Address(lambda: url, holder="fairlead-engine-0", namespace="team"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoints, "AUDIT_PAGE", 2)
        found = Ports(place, readable=request.param != "unreadable")
        yield found
        found.close()


def _escaped(name: str) -> str:
    """Return a name as a part of a path, also `..`, which no client shall resolve."""
    return quote(name, safe="", errors="replace").replace(".", "%2E")


def each(cases: list[tuple[str, str, str]]) -> pytest.MarkDecorator:
    ids = ["-".join(case[:2]) for case in cases]
    return pytest.mark.parametrize(("ports", "path", "method"), cases, indirect=["ports"], ids=ids)


def prefix_of(path: str) -> str:
    return next((prefix for prefix in ("/v1", "/hooks") if path.startswith(prefix)), "")


@pytest.mark.parametrize("ports", ["sqlite"], indirect=True)
def test_the_document_has_every_path_and_no_other(ports: Ports) -> None:
    routes = {
        (route.path, method.lower())  # type: ignore[attr-defined]
        for app in ports.applications.values()
        for route in app.routes
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert routes == set(OPERATIONS)


def test_the_document_has_every_kind_of_entry_of_record_and_of_end() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["Entry"]["properties"]["kind"]["enum"] == list(EntryKind)
    assert schemas["Sound"]["properties"]["type"]["enum"] == list(AuditType)
    assert set(schemas["Run"]["properties"]["state"]["enum"]) == {OPEN, *TERMINAL}


@pytest.mark.requirement("A06")
@each(ON_SQLITE)
def test_what_the_document_allows_is_answered_as_it_says(ports: Ports, path: str, method: str) -> None:
    @settings(FUZZ, max_examples=60)
    @given(st.data(), st.sampled_from(SENDERS), st.booleans(), st.sampled_from(TRIGGERS))
    def holds(data: st.DataObject, sender: str, there: bool, trigger: str) -> None:
        case: Any = data.draw(SCHEMA[path][method.upper()].as_strategy())
        names, more = dict(case.path_parameters or {}), case.body if isinstance(case.body, dict) else {}
        if there:
            names = {name: (KNOWN | {"trigger": trigger})[name] for name in names}
        body = json.dumps(BODY | more if there else case.body, default=str).encode() if method == "post" else b""
        answered(ports, path, method, Sent(sender, names, case.query or {}, body))

    holds()


@pytest.mark.requirement("A06", "A28", "A30")
@each(ON_SQLITE + ON_OTHERS)
def test_what_nobody_expects_crashes_nothing_and_gets_nobody_in(ports: Ports, path: str, method: str) -> None:
    reached = {answered(ports, path, method, sent) for sent in unexpected(path)}
    expected = REACHED.get(path, OF_A_NAME)
    assert reached == (expected if ports.readable else (expected - {200}) | {503})


@pytest.mark.requirement("A06")
@pytest.mark.parametrize("ports", ["sqlite"], indirect=True)
@pytest.mark.parametrize("more", ["", "/", "//", "/x", "/%00", "/?x=1"])
def test_what_is_not_in_the_document_is_nowhere(ports: Ports, more: str) -> None:
    asked = [(path, method) for path in DOCUMENT["paths"] for method in ("get", "post", "put", "delete", "options")]
    for (path, method), sender in product(asked, SENDERS):
        if more or (path, method) not in OPERATIONS:
            request = Sent(sender, KNOWN | {"trigger": "incident"}, {}).to(path + more, method)
            response = ports.send(prefix_of(path), request)
            if path.startswith("/v1") and sender != "good":
                holds_for_readers(ports, response, sender)
            else:
                assert (response.status_code, response.content) in NOWHERE, request.url
            assert set(response.headers) <= {"content-length", "content-type", "allow"}, request.url


def unexpected(path: str) -> Iterator[Sent]:
    """Yield requests of all senders: for what is there, with names, places, types and bodies that nobody expects."""
    parameters = re.findall("{([a-z]+)}", path)
    known = {name: {**KNOWN, "trigger": "incident"}[name] for name in parameters}
    named = [known, *(known | {name: odd} for name, odd in product(parameters, NAMES))]
    queries = [{"after": place} for place in PLACES] if path == "/v1/audit" else [{}]
    yield from (Sent(*what, WANTED) for what in product(SENDERS, named, queries))
    if "trigger" in parameters:
        for sender, trigger, body, types, may in product(SENDERS, TRIGGERS, BODIES, TYPES, (True, False)):
            yield Sent(sender, known | {"trigger": trigger}, {}, body, types, may)


def answered(ports: Ports, path: str, method: str, sent: Sent) -> int:
    """Send a request, look at the answer, and return its status."""
    before, ports.hooks.may = ports.made, sent.may
    response = ports.send(prefix_of(path), sent.to(path, method))
    case = SCHEMA[path][method.upper()].Case(path_parameters=dict(sent.names))
    case.validate_response(schemathesis.Response.from_any(response), checks=list(CHECKS))
    if path.startswith("/v1"):
        holds_for_readers(ports, response, sent.sender)
    if path.startswith("/hooks"):
        holds_for_callers(response, sent, nothing_made=ports.made == before)
    return response.status_code


def holds_for_readers(ports: Ports, response: httpx.Response, sender: str) -> None:
    if sender == "good":
        assert response.status_code != 503 or not ports.readable
    else:
        assert (response.status_code, response.content) == ((503, AWAY) if sender == "away" else (401, NOBODY))


def holds_for_callers(response: httpx.Response, sent: Sent, *, nothing_made: bool) -> None:
    if sent.sender != "good":
        assert response.status_code == 413 or (response.status_code, response.content) in REFUSED, sent
        assert set(response.headers) == {"content-length", "content-type"}, sent
    if sent.types != JSON:
        assert response.status_code in (401, 403, 404, 413, 415), sent
    assert nothing_made or (sent.sender == "good" and sent.types == JSON), sent
