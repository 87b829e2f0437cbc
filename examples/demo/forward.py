"""A way from the test cluster, which has none, to the model endpoint that MODEL_URL names: a proxy on the host's end.

It listens on the host's address of the test cluster's link and passes requests on as they are, over TLS where the URL
says https. On a cluster of your own it is not needed.
"""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PASSED = ("authorization", "content-type", "api-key", "x-api-key")


def forward(url: str, *, host: str, port: int) -> str:
    """Pass everything that arrives at host:port on to `url`'s origin, from a thread; return the URL to use instead."""
    target = urlsplit(url)
    app = forwarder(httpx.AsyncClient(base_url=f"{target.scheme}://{target.netloc}", timeout=120))
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    return f"http://{host}:{port}{target.path}"


def forwarder(client: httpx.AsyncClient) -> Starlette:
    """Return the proxy: requests as they are, but only the headers that a model endpoint needs."""

    async def passed(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name in PASSED}
        try:
            answer = await client.request(
                request.method, request.url.path, content=await request.body(), headers=headers
            )
        except httpx.HTTPError as error:
            return Response(f"the model endpoint does not answer: {error}", status_code=502)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return Starlette(routes=[Route("/{path:path}", passed, methods=["GET", "POST"])])
