"""The operator's only endpoints: is it alive, is it started, and its metrics. Nothing about any object."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fairlead.telemetry.metrics import OperatorMetrics


class ProbeServer(uvicorn.Server):
    """uvicorn that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def probe_application(*, trouble: Callable[[], str], metrics: OperatorMetrics) -> Starlette:
    """Return the application.

    Args:
        trouble: says what is wrong with the process, "" if nothing is.
        metrics: what `/metrics` shows.
    """

    async def healthz(request: Request) -> Response:
        wrong = trouble()
        return PlainTextResponse(wrong or "ok", status_code=503 if wrong else 200)

    async def readyz(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def show_metrics(request: Request) -> Response:
        return Response(metrics.expose(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", show_metrics)],
    )
    application.router.redirect_slashes = False  # a redirect would say the caller's own Host back
    return application


def probe_server(application: Starlette, *, port: int) -> ProbeServer:
    """Return the server, listening on every address: the kubelet asks from outside the pod."""
    return ProbeServer(
        uvicorn.Config(application, host="0.0.0.0", port=port, log_config=None, access_log=False, lifespan="off")
    )
