"""What takes a container's calls to the engine: it stands beside the step in its pod, and is the only one with a token.

The step speaks plain HTTP with it on the pod's loopback interface and never sees the token, which only this container
mounts. It numbers the requests, so that one that has to be sent again - the engine was away, or its answer was lost -
is known to be the same. Whatever else may or may not be asked for, the engine says.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Mapping
from pathlib import Path

from aiohttp import AddrInfoType, ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

PORT = 9911
NUMBER_HEADER = "X-Fairlead-Call"
TOKEN_FILE = Path("/var/run/fairlead/token/token")
COUNT_FILE = Path("/var/run/fairlead/calls/count")
MOST_BYTES = 1 << 20
AT_ONCE = 32
"""Requests that are held at the same time; more wait."""

PATIENCE_SECONDS = 600.0
"""How long an engine that is away is waited for."""
_WORKED_SECONDS = 90.0
"""An engine that breaks off later than this had begun to answer."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
_FORWARDED = ("accept", "content-type", "mcp-protocol-version", "mcp-method", "mcp-name")
_RETURNED = ("content-type", "retry-after")


class Numbers:
    """The numbers of requests, from 1; a process that comes after this one goes on from there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last = int(file.read_text(encoding="ascii")) if file.exists() else 0

    def next(self) -> int:
        """Return a number that was never returned before."""
        self._last += 1
        part = self._file.with_suffix(".part")
        part.write_text(str(self._last), encoding="ascii")
        part.replace(self._file)
        return self._last


class Forwarder:
    """Sends what it is asked to the engine, and what the engine says back."""

    def __init__(self, session: ClientSession, engine: str, token: Path, numbers: Numbers) -> None:
        """Take the engine's base URL, the file that its token is in now, and where numbers come from."""
        self._session = session
        self._engine = engine
        self._token = token
        self._numbers = numbers
        self._places = asyncio.Semaphore(AT_ONCE)

    async def handle(self, request: web.Request) -> web.Response:
        """Forward one request; again while the engine cannot be reached."""
        async with self._places:
            return await self._forward(request)

    async def _forward(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name: value for name in _FORWARDED if (value := request.headers.get(name)) is not None}
        if request.method == "POST":
            headers[NUMBER_HEADER] = str(self._numbers.next())
        pause, end = _FIRST_PAUSE_SECONDS, 0.0
        while True:
            began = time.monotonic()
            answer = await self._send(request, headers, body)
            if answer is not None:
                return answer
            if not end or time.monotonic() - began > _WORKED_SECONDS:  # it was there: patience begins anew
                pause, end = _FIRST_PAUSE_SECONDS, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() + pause > end:
                return web.json_response({"error": "Unavailable"}, status=503)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _send(self, request: web.Request, headers: Mapping[str, str], body: bytes) -> web.Response | None:
        """Send a request once; None when there is no answer, or none yet."""
        token = self._token.read_text(encoding="ascii").strip()  # the kubelet renews it
        try:
            async with self._session.request(
                request.method,
                URL(self._engine + request.raw_path, encoded=True),
                data=body,
                headers={**headers, "Authorization": f"Bearer {token}"},
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
        except (ClientError, OSError):
            return None
        if answer.status == 503:
            return None
        told = {name: value for name in _RETURNED if (value := answer.headers.get(name)) is not None}
        return web.Response(body=content, status=answer.status, headers=told)


def _connection(address: AddrInfoType) -> socket.socket:
    """Return a socket that notices within half a minute when the other side is gone without a word."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


async def serve(environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM, which the kubelet sends when the step has ended."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    trusted = ssl.create_default_context(cadata=environment["FAIRLEAD_ENGINE_CA"])
    trusted.minimum_version = ssl.TLSVersion.TLSv1_3
    no_limit = ClientTimeout(total=None, connect=5)  # a model may take its time; the step has a deadline
    connector = TCPConnector(ssl=trusted, socket_factory=_connection)
    async with ClientSession(connector=connector, timeout=no_limit, trust_env=False) as session:
        forwarder = Forwarder(session, environment["FAIRLEAD_ENGINE_URL"], TOKEN_FILE, Numbers(COUNT_FILE))
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", forwarder.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", PORT).start()
        await told.wait()
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(os.environ))
