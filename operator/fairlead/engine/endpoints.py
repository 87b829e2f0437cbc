"""What the engine answers: probes and metrics over plain HTTP, and reads of its journal and of Tools over HTTPS.

Readers come through the API server's service proxy with a viewer's token (tokens.py). Every refusal looks the same.
There is no way to change anything here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from fairlead.api.canonical import canonical_json
from fairlead.engine.answers import Answer, application, json_response, not_found, unauthenticated
from fairlead.engine.audit import readable
from fairlead.engine.store import AuditPlace, RunRow, Store
from fairlead.engine.tokens import Tokens, Unauthenticated
from fairlead.engine.tools import Discovery
from fairlead.errors import FairleadError, KubeError
from fairlead.flow.journal import Entry, RunUid
from fairlead.telemetry.spans import Span, SpanFold

TOKEN_HEADER = "x-fairlead-token"
AUDIT_PAGE = 2000
LARGEST = 2**63 - 1
"""The largest number that a store can compare with."""

_PLACE = re.compile(r"(?P<at>[0-9]{1,19}),(?P<run>[^,\0]*),(?P<number>[0-9]{1,19})")

T = TypeVar("T")

log = logging.getLogger(__name__)


def probes(*, alive: Callable[[], bool], ready: Callable[[], bool], metrics: Callable[[], bytes]) -> Starlette:
    """Return the app of the plain port: /healthz, /readyz, /metrics.

    Args:
        alive: False when the process should be restarted.
        ready: True once recovery is complete.
        metrics: the text exposition.
    """

    def answer(good: bool) -> Response:
        return PlainTextResponse("ok" if good else "not yet", 200 if good else 503)

    async def healthz(_: Request) -> Response:
        return answer(alive())

    async def readyz(_: Request) -> Response:
        return answer(ready())

    async def exposition(_: Request) -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4")

    return application([Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)])


Discover = Callable[[str], Awaitable[Discovery | None]]
"""Asks a Tool's server what it lists; None when there is no such Tool."""


def readers(store: Store, tokens: Tokens, discover: Discover) -> Starlette:
    """Return the app of the TLS port, for bearers of a viewer's token.

    It tells runs, journals, spans, payloads and audit, and how the servers of Tools define their functions.
    """

    async def runs(_: Request) -> Response:
        return json_response({"runs": [_row(row) for row in await store.runs()]})

    async def journal(request: Request) -> Response:
        entries = _found(await store.load(_uid(request)))
        return json_response({"entries": [_entry(entry) for entry in entries]})

    async def spans(request: Request) -> Response:
        uid = _uid(request)
        fold = SpanFold(uid)
        found = _found([span for entry in await store.load(uid) for span in fold.add(entry)])
        return json_response({"spans": [_span(span) for span in found]})

    async def audit_of(request: Request) -> Response:
        records = _found(await store.audit_of(_uid(request)))
        return _json_list("records", [_sound(record) for record in records])

    async def audit(request: Request) -> Response:
        found = await store.audit_after(_place(request.query_params.get("after", "0,,0")), AUDIT_PAGE)
        last = ",".join(map(str, found[-1][0])) if len(found) == AUDIT_PAGE else None
        return _json_list("records", [_sound(record) for _, record in found], after=last)

    async def anchors(_: Request) -> Response:
        return _json_list("anchors", [_sound(anchor) for anchor in await store.anchors()])

    async def payload(request: Request) -> Response:
        body = _found(await store.payload(_uid(request), _name(request, "digest")))
        return Response(body, media_type="application/json")

    async def definitions(request: Request) -> Response:
        try:
            found = await discover(request.path_params["name"])
        except FairleadError as error:
            raise Answer(503, error.reason, str(error)) from error
        return json_response({"definitions": _found(found).definitions})

    return application(
        [
            Route("/v1/tools/{name}/definitions", definitions),
            Route("/v1/runs", runs),
            Route("/v1/runs/{uid}/journal", journal),
            Route("/v1/runs/{uid}/spans", spans),
            Route("/v1/runs/{uid}/audit", audit_of),
            Route("/v1/audit", audit),
            Route("/v1/audit/anchors", anchors),
            Route("/v1/runs/{uid}/payloads/{digest}", payload),
        ],
        [Middleware(_Authenticated, verify=tokens.verify)],
    )


class _Authenticated:
    """Lets nothing in without a valid token, not even to learn which paths exist."""

    def __init__(self, app: ASGIApp, verify: Callable[[str], Awaitable[None]]) -> None:
        self._app = app
        self._verify = verify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._verify(Request(scope).headers.get(TOKEN_HEADER, ""))
        except Unauthenticated as error:
            log.info("a reader was refused", extra={"why": str(error)})
            await unauthenticated().response(scope, receive, send)
        except KubeError as error:
            log.warning("readers cannot be verified", extra={"why": str(error)})
            await Answer(503, "Unavailable").response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _name(request: Request, parameter: str) -> str:
    """Return what the path names in the store. A name with NUL is nothing's, and PostgreSQL would not look for it."""
    name: str = request.path_params[parameter]
    if "\0" in name:
        raise not_found()
    return name


def _uid(request: Request) -> RunUid:
    return RunUid(_name(request, "uid"))


def _place(after: str) -> AuditPlace:
    """Read a place in the audit as an earlier answer named it."""
    parts = _PLACE.fullmatch(after)
    at, number = (int(parts["at"]), int(parts["number"])) if parts else (0, 0)
    if parts is None or max(at, number) > LARGEST:
        said = f"after: TIME,RUN,NUMBER as an earlier answer named it, TIME and NUMBER from 0 to {LARGEST}"
        raise Answer(400, "Invalid", said)
    return at, parts["run"], number


def _found(what: T | None) -> T:
    """Return what was found; of a run that is not there nothing is."""
    if not what:
        raise not_found()
    return what


def _json_list(name: str, items: list[bytes], **more: object) -> Response:
    """Return a list whose items are canonical JSON already."""
    head = canonical_json({name: []} | more)
    return Response(head.replace(b"[]", b"[%s]" % b",".join(items), 1), media_type="application/json")


def _sound(record: bytes) -> bytes:
    """Return a record, or an empty one where somebody made something else of it: the verification tells."""
    return record if readable(record) else b"{}"


def _row(row: RunRow) -> dict[str, object]:
    return {
        "uid": row.uid,
        "name": row.name,
        "workflow": row.workflow,
        "state": row.state,
        "acceptedAt": row.accepted_at,
        "sequence": row.sequence,
    }


def _entry(entry: Entry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "at": entry.at,
        "kind": entry.kind.value,
        "path": entry.path,
        "attempt": entry.attempt,
        "data": dict(entry.data),
    }


def _span(span: Span) -> dict[str, object]:
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "parentID": span.parent_id,
        "name": span.name,
        "start": span.start_ms,
        "end": span.end_ms,
        "attributes": dict(span.attributes),
        "error": span.error,
    }
