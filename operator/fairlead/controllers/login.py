"""How kopf connects: as our own client does, and so that no object ends it that is nested too deep to be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import kopf

from fairlead.kube.reading import read, shallow


class Login:
    """Makes a session of the credentials that are found: the same one of the same, so that kopf knows it again."""

    def __init__(self) -> None:
        self._found: kopf.ConnectionInfo | None = None
        self._made: kopf.AiohttpSession | None = None

    async def session(self, settings: kopf.OperatorSettings, **_: Any) -> kopf.AiohttpSession | None:
        """Use the pod's ServiceAccount, else the kubeconfig."""
        found = await asyncio.to_thread(kopf.login_with_service_account, settings=settings)
        found = found or await asyncio.to_thread(kopf.login_with_kubeconfig, settings=settings)
        if found is None:
            return None
        if self._made is None or found != self._found:
            self._found, self._made = found, connected(found)
        return self._made


def connected(info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
    """Return a session with these credentials."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers=info.as_http_headers(),
        proxy=info.proxy_url,
        trust_env=info.trust_env,
        response_class=_Answer,
    )
    return kopf.AiohttpSession(
        server=info.server,
        default_namespace=info.default_namespace,
        priority=info.priority,
        expiration=info.expiration,
        aiohttp_session=session,
    )


class _Answer(aiohttp.ClientResponse):
    """An answer that can be read. kopf reads lists as JSON, and watches line by line, with Python's own reader."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        await super().start(connection)
        if "watch" in self.url.query:
            lines: Any = _Lines(self.content)  # kopf reads it by iter_chunked alone
            self.content = lines
        return self

    async def json(self, **_: Any) -> Any:
        return read(shallow(await self.read()))


class _Lines:
    """A stream of lines, of which none is too deep."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield shallow(line) + b"\n"
        yield shallow(rest)
