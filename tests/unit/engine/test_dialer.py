"""Where the engine dials: no private address by any spelling, no redirect, no proxy; what it knows when it fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from fairlead.engine.dialer import Dialer, DialError, Reached, TooLarge, public_socket
from fairlead.engine.egress import check_url, host_port
from fairlead.errors import EgressDenied

PUBLIC = "93.184.215.14"


class Names(AbstractResolver):
    """Resolves every name as the test says, one answer after the other."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # type: ignore[override]  # family as a number
        self.asked.append(host)
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=a,
                port=port,
                family=socket.AF_INET6 if ":" in a else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for a in addresses
        ]

    async def close(self) -> None:
        pass


class Listener:
    """A loopback server that answers each connection as told and counts what reached it."""

    def __init__(self, answer: bytes | None) -> None:
        self.connections, self.received = 0, b""
        self.port = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            self.received += await reader.readuntil(b"\r\n\r\n")
            if self._answer is not None:
                writer.write(self._answer)
                await writer.drain()
                writer.close()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    answer: bytes | None = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
) -> AsyncIterator[Listener]:
    listener = Listener(answer)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()


@asynccontextmanager
async def dialing(names: AbstractResolver | None = None) -> AsyncIterator[Dialer]:
    dialer = Dialer(resolver=names)
    try:
        yield dialer
    finally:
        await dialer.close()


async def get(
    dialer: Dialer, url: str, *, private: bool = False, timeout_seconds: float = 5, max_bytes: int = 100
) -> tuple[int, bytes]:
    async with dialer.exchange(
        "POST", URL(url), private=private, headers={}, body=b"{}", timeout_seconds=timeout_seconds
    ) as answer:
        return answer.status, await answer.read(max_bytes)


SPELLINGS = [
    "http://127.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://①②⑦.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fd00::1]/",
    "http://[ff02::1]/",
    "http://169.254.169.254/latest/meta-data",
    "http://168.63.129.16/machine?comp=goalstate",
    "http://[64:ff9b::a83f:8110]/",
    "http://[2002:a83f:8110::1]/",
    "http://192.0.0.192/opc/v2/",
    "http://192.0.0.10/",
    "http://100.100.100.200/latest/meta-data",
    "http://[fd00:ec2::254]/latest/meta-data",
    "http://[fd20:ce::254]/computeMetadata/v1",
    "http://10.96.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/",
    "ftp://example.com/",
    "unix:/var/run/docker.sock",
    "http:///nowhere",
    "https://user:word@example.com/",
    "https://good.example@example.com/",
    "https://example.com:99999/",
    "not a url",
]


@pytest.mark.requirement("A35")
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_a_private_address_is_dialled(spelling: str) -> None:
    async with listening() as listener, dialing() as dialer:
        url = spelling.format(port=listener.port)
        with pytest.raises(EgressDenied):
            check_url(url)
        try:
            parsed = URL(url)
        except ValueError:
            return
        with pytest.raises((EgressDenied, DialError)) as refused:
            async with dialer.exchange("POST", parsed, private=False, headers={}, timeout_seconds=5):
                pass
        assert getattr(refused.value, "reached", Reached.NOTHING) is Reached.NOTHING
        assert listener.connections == 0


@pytest.mark.requirement("A35")
@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1"], [PUBLIC, "10.0.0.1"], ["::ffff:127.0.0.1"], ["168.63.129.16"]]
)
async def test_a_name_that_leads_to_a_private_address_is_not_dialled(addresses: list[str]) -> None:
    async with listening() as listener, dialing(Names(addresses)) as dialer:
        with pytest.raises(EgressDenied):
            await get(dialer, f"http://tickets.example.com:{listener.port}/")
        assert listener.connections == 0


@pytest.mark.requirement("A35")
async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that flips to a private address between the check and the connection gains nothing: it is asked once."""
    names, connected = Names([PUBLIC], ["127.0.0.1"]), []

    def connect(address: tuple[Any, ...]) -> socket.socket:
        connected.append(address[4][0])
        raise ConnectionRefusedError

    monkeypatch.setattr("fairlead.engine.dialer.public_socket", connect)
    async with dialing(names) as dialer:
        with pytest.raises(DialError) as failure:
            await get(dialer, "http://rebind.example.com/")
    assert names.asked == ["rebind.example.com"] and connected == [PUBLIC]
    assert failure.value.reached is Reached.NOTHING


@pytest.mark.requirement("A35")
@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "168.63.129.16", "192.0.0.192"])
def test_no_socket_is_made_for_a_private_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with pytest.raises(EgressDenied):
        public_socket((family, socket.SOCK_STREAM, 0, "", (address, 80)))


@pytest.mark.requirement("A35")
async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with listening() as inner:
        redirect = f"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:{inner.port}/\r\nContent-Length: 0\r\n\r\n"
        async with listening(redirect.encode()) as outer, dialing() as dialer:
            assert await get(dialer, f"http://127.0.0.1:{outer.port}/", private=True) == (307, b"")
        assert inner.connections == 0


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as proxy, listening() as server, dialing() as dialer:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await get(dialer, f"http://127.0.0.1:{server.port}/", private=True)
        assert (proxy.connections, server.connections) == (0, 1)


async def test_a_private_connection_is_not_lent_to_a_request_that_may_not_go_there() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    async with listening(answer) as listener, dialing(Names(["127.0.0.1"])) as dialer:
        url = f"http://tickets.example.com:{listener.port}/"
        await get(dialer, url, private=True)
        with pytest.raises(EgressDenied):
            await get(dialer, url)
        assert listener.connections == 1


async def _unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.requirement("G3")
@pytest.mark.parametrize(
    ("answer", "reached", "timed_out"),
    [
        (None, Reached.SENT, True),
        (b"", Reached.SENT, False),
        (b"garbage\r\n\r\n", Reached.SENT, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\nhalf", Reached.ANSWERED, False),
    ],
    ids=["silence", "hang-up", "no HTTP", "half an answer"],
)
async def test_a_failure_tells_whether_the_request_may_have_arrived(
    answer: bytes | None, reached: Reached, timed_out: bool
) -> None:
    async with listening(answer) as listener, dialing() as dialer:
        with pytest.raises(DialError) as failure:
            await get(
                dialer, f"http://127.0.0.1:{listener.port}/", private=True, timeout_seconds=0.2 if timed_out else 5
            )
        assert (failure.value.reached, failure.value.timed_out) == (reached, timed_out)
        assert listener.received


@pytest.mark.requirement("G3")
async def test_a_refused_connection_has_surely_sent_nothing() -> None:
    async with dialing() as dialer:
        with pytest.raises(DialError) as failure:
            await get(dialer, f"http://127.0.0.1:{await _unused_port()}/", private=True)
        assert failure.value.reached is Reached.NOTHING


@pytest.mark.requirement("G3")
async def test_no_time_left_has_surely_sent_nothing() -> None:
    async with listening() as listener, dialing() as dialer:
        with pytest.raises(DialError) as failure:
            await get(dialer, f"http://127.0.0.1:{listener.port}/", private=True, timeout_seconds=0)
        assert failure.value.reached is Reached.NOTHING and listener.connections == 0


@pytest.mark.requirement("F29")
async def test_no_more_is_read_than_was_asked_for() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000
    async with listening(answer) as listener, dialing() as dialer:
        with pytest.raises(TooLarge):
            await get(dialer, f"http://127.0.0.1:{listener.port}/", private=True, max_bytes=1000)


@pytest.mark.requirement("A34")
@pytest.mark.parametrize("host", ["mcp..example.com", ".example.com", "a" * 64 + ".example.com", "a" * 64])
async def test_a_host_that_no_name_service_takes_is_a_failed_exchange(host: str) -> None:
    with pytest.raises(EgressDenied, match="label"):
        check_url(f"https://{host}/mcp")
    async with dialing() as dialer:
        with pytest.raises(DialError) as failure:
            await get(dialer, f"https://{host}/mcp", private=True)
    assert failure.value.reached is Reached.NOTHING


async def test_what_the_reader_of_an_answer_raises_stays_what_it_is() -> None:
    async with listening() as listener, dialing() as dialer:
        with pytest.raises(ValueError, match="no JSON"):
            async with dialer.exchange(
                "GET", URL(f"http://127.0.0.1:{listener.port}/"), private=True, headers={}, timeout_seconds=5
            ):
                raise ValueError("no JSON")


@pytest.mark.parametrize(
    ("url", "expected"),
    [("https://A.example.com", "a.example.com:443"), ("http://[FD00::1]:8080/x", "[fd00::1]:8080")],
)
def test_hosts_are_compared_in_one_form(url: str, expected: str) -> None:
    assert host_port(URL(url)) == expected
