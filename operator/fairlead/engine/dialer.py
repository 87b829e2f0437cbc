"""The only HTTP client of calls: it decides which addresses may be reached and knows whether a request was sent.

Two connection pools, so that a connection to a private address is never lent to a request that may not go there: the
public one checks what a name resolves to and, once more, each address at the moment its socket is made. The address
that was checked is the one connected to. Proxy variables are ignored, redirects are never followed, cookies are not
kept, answers are not decompressed.

aiohttp is used as it is: behind the httpx transport its errors lose the difference between "could not connect" and
"disconnected after the request", which decides whether an effect may have happened.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL

from fairlead import __version__
from fairlead.engine.egress import check_url, refusal
from fairlead.errors import EgressDenied, FairleadError

KEEP_ALIVE_SECONDS = 4.0
"""Shorter than common servers keep idle connections (5 s): a request must not meet one that is just being closed."""

CONNECTIONS = 1000
HEADERS = {"User-Agent": f"fairlead/{__version__}", "Accept-Encoding": "identity"}


class Reached(IntEnum):
    """How far a failed exchange came."""

    NOTHING = 0  # no byte of the request was written
    SENT = 1  # the request, or a part of it, may have arrived
    ANSWERED = 2  # the status line came back, the rest did not


class DialError(FairleadError):
    """An exchange failed. `reached` tells how far it came, `timed_out` whether time was the reason."""

    reason = "Unavailable"

    def __init__(self, message: str, *, reached: Reached, timed_out: bool = False) -> None:
        super().__init__(message)
        self.reached = reached
        self.timed_out = timed_out


class TooLarge(FairleadError):
    """The answer is larger than the caller wants to read."""

    reason = "TooLarge"


class Answer:
    """An answer whose headers have arrived. `headers` are looked up without regard to case."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            TooLarge: there are more than `max_bytes`.
        """
        size = 0
        async for chunk in self._response.content.iter_any():
            size += len(chunk)
            if size > max_bytes:
                raise TooLarge(f"the answer is larger than {max_bytes} bytes")
            yield chunk

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            TooLarge: it has more than `max_bytes`.
        """
        return b"".join([chunk async for chunk in self.chunks(max_bytes)])


class Dialer:
    """The process's HTTP client. Close it at the end."""

    def __init__(self, *, resolver: AbstractResolver | None = None, tls: ssl.SSLContext | None = None) -> None:
        """Take a resolver (default: the system's) and a TLS context.

        By default servers are verified against the roots in `SSL_CERT_FILE`, else the system's and Mozilla's.
        """
        self._resolver = resolver
        self._tls = tls or _trusted_roots()
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: URL,
        *,
        private: bool,
        headers: Mapping[str, str],
        timeout_seconds: float,
        body: bytes | None = None,
    ) -> AsyncIterator[Answer]:
        """Send one request; the block reads the answer. The time-out holds for both.

        Args:
            method: the HTTP method.
            url: where to.
            private: whether the address may be one that is not public (egress.check_url said so).
            headers: all headers but those of HTTP itself.
            timeout_seconds: for everything, from the first look-up to the last byte.
            body: the bytes to send.

        Raises:
            EgressDenied: the address may not be reached; nothing was sent.
            DialError: no answer, or not all of it; it tells how far the exchange came.
        """
        if not private:
            check_url(str(url))
        progress = SimpleNamespace(reached=Reached.NOTHING)
        try:
            async with (
                asyncio.timeout(timeout_seconds),
                self._session(private).request(
                    method,
                    url,
                    data=body,
                    headers={**HEADERS, **headers},
                    allow_redirects=False,
                    trace_request_ctx=progress,
                ) as response,
            ):
                progress.reached = Reached.ANSWERED
                yield Answer(response)
        except TimeoutError as error:
            raise DialError("no answer in time", reached=progress.reached, timed_out=True) from error
        except ValueError as error:
            if progress.reached is Reached.ANSWERED:
                raise  # of the block that reads the answer
            message = "this host, or a header, is nothing that can be sent"
            raise DialError(message, reached=progress.reached) from error
        except (aiohttp.ClientError, OSError) as error:
            raise DialError(_WORDS[progress.reached], reached=progress.reached) from error

    def _session(self, private: bool) -> aiohttp.ClientSession:
        if private not in self._sessions:
            resolver = self._resolver or DefaultResolver()
            connector = aiohttp.TCPConnector(
                resolver=resolver if private else PublicResolver(resolver),
                socket_factory=None if private else public_socket,
                ssl=self._tls,
                limit=CONNECTIONS,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
            )
            self._sessions[private] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                trace_configs=[_watch_sending()],
            )
        return self._sessions[private]


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those that lead to any address that is not public."""

    def __init__(self, resolver: AbstractResolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name.

        Raises:
            EgressDenied: one of them is not public.
        """
        found = await self._resolver.resolve(host, port, family)
        for address in found:
            _check(address["host"])
        return found

    async def close(self) -> None:
        """Close the resolver beneath."""
        await self._resolver.close()


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for an address of `getaddrinfo`, the last look at where a connection really goes.

    Raises:
        EgressDenied: the address is not public.
    """
    family, type_, protocol, _, where = address
    _check(where[0])
    return socket.socket(family, type_, protocol)


def _check(address: str) -> None:
    why = refusal(ipaddress.ip_address(address.partition("%")[0]))
    if why:
        raise EgressDenied(f"the name leads to {why}")


def _trusted_roots() -> ssl.SSLContext:
    context = ssl.create_default_context()
    if "SSL_CERT_FILE" not in os.environ:
        context.load_verify_locations(certifi.where())  # a slim image has no roots of its own
    return context


def _watch_sending() -> aiohttp.TraceConfig:
    """Note the moment before the first byte of a request is written: from then on it may have arrived."""
    config = aiohttp.TraceConfig()

    async def sending(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.reached = Reached.SENT

    config.on_request_headers_sent.append(sending)
    return config


_WORDS = {
    Reached.NOTHING: "no connection",
    Reached.SENT: "the connection ended before an answer came",
    Reached.ANSWERED: "the answer was cut off",
}
