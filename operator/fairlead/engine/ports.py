"""The engine's ports. Those that speak TLS have one certificate, which is renewed while they serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from fairlead.engine.tls import Identity, identity

HTTPS_PORT = 8443
HOOKS_PORT = 8444
STEPS_PORT = 8445
HTTP_PORT = 8080
LOOK_SECONDS = 3600.0
"""How often the certificate is looked at; it is good for weeks after it was to be renewed."""

_log = logging.getLogger(__name__)


class Ports:
    """Serves applications, each at its port, until they are cancelled."""

    def __init__(self, directory: Path, names: tuple[str, ...], *, host: str = "0.0.0.0") -> None:
        """Take where the TLS files live, the DNS names of the engine, and the address to listen at."""
        self._directory = directory
        self._names = names
        self._host = host
        self._own: Identity | None = None
        self._secure: list[uvicorn.Config] = []

    @property
    def ca_pem(self) -> str:
        """Return the certificate of the CA, for whoever verifies the engine."""
        return self._identity().ca_pem

    async def serve(self, application: Any, port: int) -> None:
        """Serve with TLS."""
        own = self._identity()
        config = self._config(application, port, ssl_certfile=own.certificate, ssl_keyfile=own.key)
        config.load()
        self._secure.append(config)
        await _until_cancelled(_Server(config))

    async def serve_plain(self, application: Any, port: int) -> None:
        """Serve without TLS."""
        await _until_cancelled(_Server(self._config(application, port)))

    async def renew(self) -> None:
        """Renew the certificate when half of its time is over; whoever connects from then on is shown the new one."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._identity().due():
                continue
            try:
                self._own = self._made()
            except OSError as error:
                _log.warning("the certificate cannot be renewed yet: %s", error)
                continue
            for config in self._secure:
                assert config.ssl is not None
                config.ssl.load_cert_chain(self._own.certificate, self._own.key)

    def _identity(self) -> Identity:
        if self._own is None:
            self._own = self._made()
        return self._own

    def _made(self) -> Identity:
        return identity(self._directory, names=self._names)  # some milliseconds

    def _config(self, application: Any, port: int, **tls: Any) -> uvicorn.Config:
        return uvicorn.Config(
            application, host=self._host, port=port, log_config=None, access_log=False, lifespan="off", **tls
        )


class _Server(uvicorn.Server):
    """uvicorn that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def _until_cancelled(server: _Server) -> None:
    try:
        await server.serve()
    finally:
        for listening in getattr(server, "servers", ()):  # there are none before it has begun
            listening.close()
