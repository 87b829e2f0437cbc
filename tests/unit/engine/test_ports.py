"""The engine's TLS: who verifies it, for which names, and that certificates are renewed while it serves."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fairlead.engine import ports
from fairlead.engine.ports import Ports
from fairlead.engine.tls import CA_DAYS, SERVER_DAYS, identity

NAME = "fairlead-engine.team-a.svc"
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=SERVER_DAYS / 2 + 1)


def trusting(pem: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=pem)


def port_of(taken: socket.socket) -> int:
    return int(taken.getsockname()[1])


async def shown(port: int, trusted: ssl.SSLContext, name: str = NAME) -> int:
    """Return the serial number of the certificate that whoever connects is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted, server_hostname=name)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[tuple[Ports, int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = port_of(free)
    served = Ports(directory, (NAME,), host="127.0.0.1")
    application = Starlette(routes=[Route("/", lambda request: PlainTextResponse("here"))])
    tasks = [asyncio.create_task(part) for part in (served.serve(application, port), served.renew())]
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    await shown(port, trusting(served.ca_pem))
                    break
                await asyncio.sleep(0.02)
        yield served, port
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def long_ago() -> Iterator[pytest.MonkeyPatch]:
    """Have it be long ago, until it is undone."""
    with pytest.MonkeyPatch.context() as past:
        past.setattr("fairlead.engine.tls.datetime", _at(LONG_AGO))
        yield past


async def test_only_the_engines_own_ca_vouches_for_it_and_only_by_its_name(tmp_path: Path) -> None:
    async with serving(tmp_path / "one") as (served, port):
        assert await shown(port, trusting(served.ca_pem))
        other = identity(tmp_path / "two", names=(NAME,))
        for trusted, name in ((other.ca_pem, NAME), (served.ca_pem, "elsewhere.svc")):
            with pytest.raises(ssl.SSLCertVerificationError):
                await shown(port, trusting(trusted), name)


@pytest.mark.requirement("F46")
async def test_a_certificate_is_renewed_while_it_serves_and_open_connections_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_ago: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LOOK_SECONDS", 0.02)
    async with serving(tmp_path) as (served, port):
        trusted = trusting(served.ca_pem)
        first = await shown(port, trusted)
        one = aiohttp.TCPConnector(ssl=trusted, limit=1)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=one) as client:
            assert await (await client.get("/", server_hostname=NAME)).text() == "here"
            assert await shown(port, trusted) == first, "renewed before its time"
            long_ago.undo()
            async with asyncio.timeout(20):
                while await shown(port, trusted) == first:
                    await asyncio.sleep(0.02)
            assert await (await client.get("/", server_hostname=NAME)).text() == "here"
    assert served.ca_pem == (tmp_path / "ca.crt").read_text("ascii")


async def test_a_certificate_that_cannot_be_written_is_renewed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_ago: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "LOOK_SECONDS", 0.02)
    tried = asyncio.Event()

    def full(*_: object, **__: object) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    async with serving(tmp_path) as (served, port):
        trusted = trusting(served.ca_pem)
        first = await shown(port, trusted)
        with monkeypatch.context() as broken:
            broken.setattr(ports, "identity", full)
            long_ago.undo()
            await asyncio.wait_for(tried.wait(), 20)
            assert await shown(port, trusted) == first
        async with asyncio.timeout(20):
            while await shown(port, trusted) == first:
                await asyncio.sleep(0.02)


def test_the_ca_stays_until_half_of_its_time_is_over(tmp_path: Path) -> None:
    first = identity(tmp_path, names=(NAME,), now=NOW)
    key = (tmp_path / "ca.key").read_bytes()
    again = identity(tmp_path, names=(NAME,), now=NOW + timedelta(days=CA_DAYS / 2 - 1))
    assert again.ca_pem == first.ca_pem
    assert again.renew_at > first.renew_at
    late = identity(tmp_path, names=(NAME,), now=NOW + timedelta(days=CA_DAYS / 2 + 1))
    assert late.ca_pem != first.ca_pem
    assert (tmp_path / "ca.key").read_bytes() == key


def test_who_trusts_the_old_ca_trusts_what_the_new_one_signs(tmp_path: Path) -> None:
    begin = NOW - timedelta(days=CA_DAYS / 2 + 1)
    old = identity(tmp_path, names=(NAME,), now=begin)
    new = identity(tmp_path, names=(NAME,), now=NOW)
    assert new.ca_pem != old.ca_pem
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(new.certificate, new.key)
    server = context.wrap_bio(theirs, ours, server_side=True)
    client = trusting(old.ca_pem).wrap_bio(ours, theirs, server_hostname=NAME)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.getpeercert()


def test_the_keys_are_for_the_engine_alone(tmp_path: Path) -> None:
    identity(tmp_path / "tls", names=(NAME,))
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "tls").iterdir()} == {0o600}
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700


def test_an_engine_that_lost_its_ca_or_the_key_makes_both_anew(tmp_path: Path) -> None:
    first = identity(tmp_path, names=(NAME,))
    (tmp_path / "ca.key").unlink()
    second = identity(tmp_path, names=(NAME,))
    (tmp_path / "ca.crt").unlink()
    third = identity(tmp_path, names=(NAME,))
    assert len({first.ca_pem, second.ca_pem, third.ca_pem}) == 3


def _at(now: datetime) -> type[datetime]:
    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return now

    return Then
