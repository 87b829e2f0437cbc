"""What takes a container's calls to the engine: with the token that its file has now, numbered, again if need be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from mcp.client import Client
from tests.servers.serving import served
from tests.unit.engine.gatewayworld import ACCOUNT, HELLO, GatewayWorld

from fairlead import stepcalls, steplistens
from fairlead.engine.tls import identity
from fairlead.stepcalls import Forwarder, Numbers


@contextlib.asynccontextmanager
async def forwarding(engine: str, folder: Path) -> AsyncIterator[str]:
    """Have a forwarder to this engine; the context gives its URL."""
    token = folder / "token"
    if not token.exists():
        token.write_text("one\n", encoding="ascii")
    server = Forwarder(("127.0.0.1", 0), engine, token, Numbers(folder / "count"), None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        await asyncio.to_thread(server.shutdown)
        thread.join()
        server.server_close()


@contextlib.asynccontextmanager
async def engine(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        yield server


async def post(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.post(f"{url}/v1/chat/completions?x=%2F", json={"a": 1}, headers=headers)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepcalls, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("fairlead.engine.pods.runner._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("fairlead.engine.pods.runner._LONGEST_PAUSE_SECONDS", 0.001)


async def test_what_the_step_says_of_itself_is_left_and_the_pods_token_goes_along(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def answer(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen.append((request.raw_path, headers, await request.json()))
        return web.json_response({"ok": 1}, status=403, headers={"Retry-After": "3", "Set-Cookie": "x=1"})

    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        evil = {"authorization": "Bearer mine", "x-fairlead-call": "77", "cookie": "x", "mcp-name": "f"}
        told = await post(url, **evil)
        (tmp_path / "token").write_text("two", encoding="ascii")
        await post(url)
    assert (told.status_code, told.json(), told.headers["retry-after"]) == (403, {"ok": 1}, "3")
    assert "set-cookie" not in told.headers
    path, headers, body = seen[0]
    assert path == "/v1/chat/completions?x=%2F" and body == {"a": 1}
    assert headers["authorization"] == "Bearer one" and headers["x-fairlead-call"] == "1"
    assert headers["mcp-name"] == "f" and "cookie" not in headers
    assert (seen[1][1]["authorization"], seen[1][1]["x-fairlead-call"]) == ("Bearer two", "2")


@pytest.mark.requirement("G2")
async def test_a_request_goes_again_under_its_number_until_there_is_an_answer(tmp_path: Path) -> None:
    numbers: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        numbers.append(request.headers["X-Fairlead-Call"])
        if len(numbers) == 1:
            return web.Response(status=503)
        if len(numbers) == 2:
            assert request.transport is not None
            request.transport.abort()  # the engine died
        return web.json_response({"ok": 1})

    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        assert (await post(url)).json() == {"ok": 1}
        assert (await post(url)).json() == {"ok": 1}
    assert numbers == ["1", "1", "1", "2"]


async def test_an_engine_that_does_not_come_back_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepcalls, "PATIENCE_SECONDS", 0.05)
    async with forwarding("http://127.0.0.1:9", tmp_path) as url:
        told = await post(url)
    assert (told.status_code, told.json()) == (503, {"error": "Unavailable"})


async def test_patience_begins_when_the_engine_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepcalls, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(stepcalls, "_WORKED_SECONDS", 0.25)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["X-Fairlead-Call"])
        if len(asked) == 1:
            await asyncio.sleep(0.5)  # longer than patience, and then it dies
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"ok": 1})

    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        assert (await post(url)).json() == {"ok": 1}
    assert asked == ["1", "1"]


def test_who_waits_for_it_is_done_when_it_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
        listening = threading.Timer(0.2, made.listen)
        listening.start()
        steplistens.wait(port)
        listening.join()
    monkeypatch.setattr(steplistens, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(ConnectionRefusedError):
        steplistens.wait(port)


async def test_it_ends_when_the_kubelet_says_so(tmp_path: Path) -> None:
    pem = (tmp_path / "ca.crt").read_text(encoding="ascii") if identity(tmp_path, names=("x",)) else ""
    variables = os.environ | {"FAIRLEAD_ENGINE_CA": pem, "FAIRLEAD_ENGINE_URL": "https://127.0.0.1:9"}
    variables["PYTHONPATH"] = str(Path(stepcalls.__file__).parents[1])
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "fairlead.stepcalls", env=variables)
    for _ in range(400):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", steplistens.PORT)
            writer.close()
            break
        await asyncio.sleep(0.05)
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 10) == 0, "as the first process of a container it would not be killed"


async def test_so_many_requests_are_held_at_once_and_more_wait(tmp_path: Path) -> None:
    asked, answered = 0, asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        await answered.wait()
        return web.json_response({"ok": 1})

    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        waiting = [asyncio.create_task(post(url)) for _ in range(stepcalls.AT_ONCE + 8)]
        while asked < stepcalls.AT_ONCE:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert asked == stepcalls.AT_ONCE
        answered.set()
        assert all(told.status_code == 200 for told in await asyncio.gather(*waiting))


async def test_a_body_may_come_in_chunks_and_what_is_too_large_or_malformed_is_refused(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(await request.read())
        return web.json_response({"ok": 1})

    async def said(url: str, head: str, body: bytes, path: str = "/x") -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + body)
        writer.write_eof()
        status = (await reader.readline()).decode()
        writer.close()
        return status.split()[1]

    most, chunked = stepcalls.MOST_BYTES, "Transfer-Encoding: chunked"
    half = f"{most // 2:x}\r\n".encode() + b"a" * (most // 2) + b"\r\n"
    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        assert await said(url, chunked, b"3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n") == "200"
        assert await said(url, f"Content-Length: {most}", b"b" * most) == "200"
        assert await said(url, f"Content-Length: {most + 1}", b"") == "413"
        assert await said(url, chunked, half * 2 + b"1\r\na\r\n0\r\n\r\n") == "413"
        assert await said(url, f"Content-Length: {2 * most}", b"c" * 2 * most) == "413", "and the answer arrives"
        for head, body in [
            ("Content-Length: many", b""),
            ("Content-Length: -1", b""),
            ("Content-Length: 1_0", b"a" * 10),
            ("Content-Length: 9", b"short"),
            ("Content-Length: 1\r\nContent-Length: 2", b"ab"),
            (f"Content-Length: 1\r\n{chunked}", b"0\r\n\r\n"),
            ("Transfer-Encoding: gzip, chunked", b"0\r\n\r\n"),
            (chunked, b"z\r\n"),
            (chunked, b"-1\r\n"),
            (chunked, b"0x1\r\na\r\n0\r\n\r\n"),
            (chunked, b"2\r\nabc\r\n0\r\n\r\n"),
            (chunked, b"3\r\nabc"),
            (chunked, b"1" * 2000),
            ("Accept: a\r\n b\r\nContent-Length: 0", b""),
        ]:
            assert await said(url, head, body) == "400", (head, body)
        assert await said(url, "Content-Length: 0", b"", path="http://evil.example/x") == "400"
    assert seen == [b"abcde", b"b" * most]


async def test_a_token_that_is_being_renewed_is_waited_for_and_what_cannot_be_counted_is_not_sent(
    tmp_path: Path,
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"number": request.headers["X-Fairlead-Call"]})

    async with engine(answer) as there, forwarding(str(there.make_url("")).rstrip("/"), tmp_path) as url:
        (tmp_path / "token").unlink()
        waiting = asyncio.create_task(post(url))
        await asyncio.sleep(0.1)
        (tmp_path / "token").write_text("two", encoding="ascii")
        assert (await waiting).json() == {"number": "1"}
        (tmp_path / "count.part").mkdir()
        assert (await post(url)).status_code == 503


def test_its_connections_notice_a_node_that_is_gone() -> None:
    with socket.socket() as made:
        stepcalls.notice_loss(made)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, between, times = (
            made.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        silent_ms = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert idle + between * times <= 30
    assert 0 < silent_ms <= 30_000, "also while it sends, when nothing is asked whether it lives"


def test_a_process_that_comes_after_another_goes_on_counting(tmp_path: Path) -> None:
    first = Numbers(tmp_path / "count")
    assert [first.next(), first.next()] == [1, 2]
    assert Numbers(tmp_path / "count").next() == 3


async def test_stock_clients_work_through_it_and_the_gateway(tmp_path: Path) -> None:
    world = GatewayWorld()
    await world.start()
    world.the_pod["status"] = {"podIPs": [{"ip": "127.0.0.1"}], "phase": "Running"}
    (tmp_path / "token").write_text(f"{ACCOUNT} pod-1", encoding="ascii")
    async with served(world.gateway.application()) as there, forwarding(there, tmp_path) as url:
        async with Client(f"{url}/mcp/tickets") as tools:
            listed = (await tools.list_tools()).tools
            assert [one.name for one in listed] == ["search", "create", "append"]
            assert listed[0].input_schema["properties"] == {"query": {"type": "string"}}
            done = await tools.call_tool("search", {"query": "refund"})
            assert (done.is_error, done.structured_content) == (False, {"n": 1})
            refused = await tools.call_tool("nothing", {})
            assert refused.is_error and refused.content[0].text == "not permitted"  # type: ignore[union-attr]
        async with Client(f"{url}/mcp/tickets", mode="legacy") as tools:
            assert not (await tools.call_tool("append", {})).is_error
        async with httpx.AsyncClient(trust_env=False) as client:
            said = (await client.post(f"{url}/v1/chat/completions", json=HELLO)).json()
            assert said["choices"][0]["message"]["content"] == "Hi."
    await world.end()
    assert [call.function or call.target for call in world.dispatched] == ["search", "append", "small"]
    await asyncio.sleep(0)
