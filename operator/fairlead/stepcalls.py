"""What takes a container's calls to the engine: it stands beside the step in its pod, and is the only one with a token.

The step speaks plain HTTP with it on the pod's loopback interface and never sees the token, which only this container
mounts. It numbers the requests, so that one that has to be sent again - the engine was away, or its answer was lost -
is known to be the same. Whatever else may or may not be asked for, the engine says.

Every step that calls starts one: it imports nothing but the standard library, so that a pod has it soon.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection, InvalidURL
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from fairlead.steplistens import PORT

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
_CONNECT_SECONDS, _IDLE_SECONDS = 5.0, 75.0
_KEPT_SECONDS = 4.0
"""How long a connection may have been idle that is used again; the engine closes it a little later."""
_DROPPED_SECONDS = 1.0
_SILENT_MS = 30_000
_SIZE, _CHUNK = re.compile("[0-9]{1,9}"), re.compile("[0-9a-fA-F]{1,8}")
_FORWARDED = ("accept", "content-type", "mcp-protocol-version", "mcp-method", "mcp-name")
_RETURNED = ("content-type", "retry-after")
_LINE_BYTES = 1024


class Numbers:
    """The numbers of requests, from 1; a process that comes after this one goes on from there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last = int(file.read_text(encoding="ascii")) if file.exists() else 0
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return a number that was never returned before."""
        with self._lock:
            self._last += 1
            part = self._file.with_suffix(".part")
            part.write_text(str(self._last), encoding="ascii")
            part.replace(self._file)
            return self._last


class Asked(NamedTuple):
    """What the step asks for; `headers` are those that go on."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Told(NamedTuple):
    """What it is told."""

    status: int
    headers: Mapping[str, str]
    body: bytes


UNAVAILABLE = Told(503, {"content-type": "application/json"}, b'{"error": "Unavailable"}')


class Upstream:
    """The way to the engine, of one connection of the step."""

    def __init__(self, url: str, token: Path, trusted: ssl.SSLContext | None) -> None:
        """Take its URL, the file that the token is in now, and whom to trust; None for plain HTTP, in tests."""
        there = urlsplit(url)
        host = there.hostname or ""
        self._connection = (
            HTTPSConnection(host, there.port, timeout=_CONNECT_SECONDS, context=trusted)
            if trusted is not None
            else HTTPConnection(host, there.port, timeout=_CONNECT_SECONDS)
        )
        self._token = token
        self._used = 0.0

    def send(self, asked: Asked) -> Told | None:
        """Send a request once; None when there is no answer, or none yet.

        Raises:
            ValueError: it cannot be sent as it is.
        """
        try:
            token = self._token.read_text(encoding="ascii").strip()  # the kubelet renews it
            self._connect()
            headers = {**asked.headers, "Authorization": f"Bearer {token}"}
            self._connection.request(asked.method, asked.path, asked.body or None, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except InvalidURL as error:
            raise ValueError(str(error)) from error
        except (HTTPException, OSError):
            self.close()
            return None
        self._used = time.monotonic()
        if answer.status == 503:
            return None
        told = {name: value for name in _RETURNED if (value := answer.headers.get(name)) is not None}
        return Told(answer.status, told, content)

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        self._connection.close()

    def _connect(self) -> None:
        """Have a connection that the engine has not closed meanwhile."""
        if self._connection.sock is not None and time.monotonic() - self._used < _KEPT_SECONDS:
            return
        self.close()
        self._connection.connect()
        self._connection.sock.settimeout(None)  # a model may take its time; the step has a deadline
        notice_loss(self._connection.sock)


def notice_loss(made: socket.socket) -> None:
    """Have a socket notice within half a minute when the other side is gone without a word, idle or not."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_MS)
    for option, value in ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        made.setsockopt(socket.IPPROTO_TCP, option, value)


class Forwarder(ThreadingHTTPServer):
    """Sends what it is asked to the engine, and what the engine says back. A thread for each connection of the step."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, address: tuple[str, int], engine: str, token: Path, numbers: Numbers, trusted: ssl.SSLContext | None
    ) -> None:
        """Take where it listens, the engine's base URL, and what `Upstream` takes; `numbers` are those of requests."""
        super().__init__(address, _Handler)
        self._engine, self._token, self._trusted = engine, token, trusted
        self._numbers = numbers
        self.places = threading.Semaphore(AT_ONCE)

    def upstream(self) -> Upstream:
        """Return a way to the engine."""
        return Upstream(self._engine, self._token, self._trusted)

    def forward(self, upstream: Upstream, asked: Asked) -> Told:
        """Forward one request; again while the engine cannot be reached.

        Raises:
            ValueError: it cannot be sent as it is.
            OSError: it cannot be given a number.
        """
        number = {NUMBER_HEADER: str(self._numbers.next())} if asked.method == "POST" else {}
        asked = asked._replace(headers={**asked.headers, **number})
        pause, end = _FIRST_PAUSE_SECONDS, 0.0
        while True:
            began = time.monotonic()
            told = upstream.send(asked)
            if told is not None:
                return told
            if not end or time.monotonic() - began > _WORKED_SECONDS:  # it was there: patience begins anew
                pause, end = _FIRST_PAUSE_SECONDS, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() + pause > end:
                return UNAVAILABLE
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever has asked is gone, all else is answered."""


class _TooLarge(Exception):
    """A request has more than `MOST_BYTES`."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True
    server: Forwarder

    def setup(self) -> None:
        super().setup()
        self._upstream = self.server.upstream()

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def forward(self) -> None:
        """Answer one request."""
        with self.server.places:  # also while the body comes: so many are held
            told = self._told()
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(told.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(told.body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = forward

    def _told(self) -> Told:
        try:
            if not self.path.startswith("/"):
                raise ValueError("it names another host")
            body = self._body()
            headers = {name: value for name in _FORWARDED if (value := self.headers.get(name)) is not None}
            return self.server.forward(self._upstream, Asked(self.command, self.path, headers, body))
        except _TooLarge:
            return self._refused(413)
        except ValueError:
            return self._refused(400)
        except TimeoutError:
            return self._refused(408)
        except OSError:
            return UNAVAILABLE

    def _refused(self, status: int) -> Told:
        """Refuse it; what still comes is dropped for a moment, or a reset would overtake the answer."""
        self.close_connection = True
        self.connection.settimeout(_DROPPED_SECONDS / 10)
        end = time.monotonic() + _DROPPED_SECONDS
        with suppress(OSError):
            while time.monotonic() < end and self.rfile.read1(65_536):
                pass
        return Told(status, {}, b"")

    def _body(self) -> bytes:
        """Read what is sent.

        Raises:
            _TooLarge: it is more than is taken.
            ValueError: it is not sent as HTTP says.
        """
        codings = self.headers.get_all("Transfer-Encoding") or []
        sizes = self.headers.get_all("Content-Length") or []
        if len(codings) + len(sizes) > 1 or codings not in ([], ["chunked"]):
            raise ValueError("nobody can tell where it ends")
        if codings:
            return b"".join(self._chunks())
        return self._read(_number(_SIZE, sizes[0].strip(), 10), MOST_BYTES) if sizes else b""

    def _chunks(self) -> list[bytes]:
        found: list[bytes] = []
        left = MOST_BYTES
        while size := _number(_CHUNK, self._line().partition(b";")[0].decode("ascii").strip(), 16):
            found.append(self._read(size, left))
            left -= size
            if self._line():
                raise ValueError("a chunk is longer than it says")
        while self._line():  # trailers
            pass
        return found

    def _read(self, size: int, most: int) -> bytes:
        if size > most:
            raise _TooLarge
        content = self.rfile.read(size)
        if len(content) < size:
            raise ValueError("the rest of the request is missing")
        return content

    def _line(self) -> bytes:
        line = self.rfile.readline(_LINE_BYTES)
        if not line.endswith(b"\n"):
            raise ValueError("a line has no end")
        return line.strip()

    def log_message(self, *_: object) -> None:
        """Say nothing: the engine's audit has it."""

    def version_string(self) -> str:
        return "fairlead"


def _number(form: re.Pattern[str], text: str, base: int) -> int:
    """Read a number that is written as HTTP says, and as nothing else.

    Raises:
        ValueError: it is not.
    """
    if not form.fullmatch(text):
        raise ValueError("this is no size")
    return int(text, base)


def serve(environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM, which the kubelet sends when the step has ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # before there is another thread
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusted.minimum_version = ssl.TLSVersion.TLSv1_3
    trusted.load_verify_locations(cadata=environment["FAIRLEAD_ENGINE_CA"])
    numbers = Numbers(COUNT_FILE)
    server = Forwarder(("127.0.0.1", PORT), environment["FAIRLEAD_ENGINE_URL"], TOKEN_FILE, numbers, trusted)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    serve(os.environ)
