"""What the engine's ports answer: canonical JSON, and refusals that are constant words.

An endpoint ends a request by raising Answer. What else is raised becomes one here, and its own words stay in the log:
a path or method that is not there, a store that cannot be read, a mistake of ours. Nobody is sent elsewhere: a redirect
would repeat the caller's Host header, before anybody asked who calls.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from fairlead.api.canonical import canonical_json
from fairlead.errors import FairleadError, StoreError

_log = logging.getLogger(__name__)


def json_response(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON value as a response."""
    return Response(canonical_json(value), status, dict(headers or {}), "application/json")


class Answer(FairleadError):
    """The request ends here, with this status and these words."""

    reason = "Answered"

    def __init__(self, status: int, error: str, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message or error)
        body = {"error": error} | ({"message": message} if message else {})
        self.response = json_response(body, status, headers)


def unauthenticated() -> Answer:
    """Return what everybody hears who does not prove who they are, whatever they asked for."""
    return Answer(401, "Unauthenticated")


def not_found() -> Answer:
    """Return what is said of what is not there."""
    return Answer(404, "NotFound")


def application(routes: Sequence[BaseRoute], middleware: Sequence[Middleware] = ()) -> Starlette:
    """Return an app of these routes that ends every request as this module says."""
    endings = {Answer: _answer, HTTPException: _no_route, StoreError: _no_store, Exception: _mistake}
    app = Starlette(routes=routes, middleware=middleware, exception_handlers=endings)
    app.router.redirect_slashes = False
    return app


async def _answer(_: Request, error: Exception) -> Response:
    assert isinstance(error, Answer)
    return error.response


async def _no_route(_: Request, error: Exception) -> Response:
    """Answer 404 or 405."""
    assert isinstance(error, HTTPException)
    words = HTTPStatus(error.status_code).phrase.replace(" ", "")
    return Answer(error.status_code, words, headers=error.headers).response


async def _no_store(_: Request, error: Exception) -> Response:
    _log.warning("the store cannot be read for a request: %s", error)
    return Answer(503, "Unavailable").response


async def _mistake(_: Request, error: Exception) -> Response:
    """Answer 500; the server logs the error."""
    return Answer(500, "Internal").response
