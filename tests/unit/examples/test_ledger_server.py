"""The ledger tells the truth about effects: how many, by whom, and whether or not they were answered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from tests.servers import ledger
from tests.servers.serving import call, get, served


async def test_a_keyless_effect_happens_as_often_as_it_is_called(tmp_path: Path) -> None:
    async with served(ledger.create_app(tmp_path / "ledger.jsonl")) as url:
        await call(url, "append", key="a")
        assert (await call(url, "append", key="a"))["count"] == 2
        assert (await call(url, "read", key="a"))["count"] == 2
        assert [entry["key"] for entry in (await get(f"{url}/ledger"))["entries"]] == ["a", "a"]
        assert [entry["function"] for entry in (await get(f"{url}/calls"))["entries"]] == ["append", "append", "read"]


async def test_a_token_makes_one_effect_by_argument_or_header_and_across_a_restart(tmp_path: Path) -> None:
    async with served(ledger.create_app(tmp_path / "ledger.jsonl")) as url:
        first = await call(url, "append_keyed", key="a", clientToken="t")
        assert await call(url, "append_keyed", key="a", clientToken="t") == first
    async with served(ledger.create_app(tmp_path / "ledger.jsonl")) as url:
        assert await call(url, "append_keyed", headers={"idempotency-key": "t"}, key="a") == first
        assert (await call(url, "append_keyed", headers={"idempotency-key": "u"}, key="a"))["count"] == 2
        assert len((await get(f"{url}/ledger"))["entries"]) == 2


async def test_the_ledger_shows_the_headers_that_arrived(tmp_path: Path) -> None:
    async with served(ledger.create_app(tmp_path / "ledger.jsonl")) as url:
        headers = {"authorization": "Bearer sesame"}
        echoed = await call(url, "echo_headers", headers=headers)
        assert echoed["headers"]["authorization"] == "Bearer sesame"
        await call(url, "append", headers=headers, key="a")
        (entry,) = (await get(f"{url}/ledger"))["entries"]
        assert entry["headers"]["authorization"] == "Bearer sesame"
        assert entry["arguments"] == {"key": "a"}


async def test_a_line_cut_off_by_a_kill_is_no_effect(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with served(ledger.create_app(path)) as url:
        await call(url, "append", key="a")
    with path.open("a") as file:
        file.write('{"entry": 2, "key": "a"')
    async with served(ledger.create_app(path)) as url:
        assert (await call(url, "append", key="a"))["count"] == 2
    async with served(ledger.create_app(path)) as url:
        assert (await call(url, "read", key="a"))["count"] == 2


async def test_failures_come_in_kinds(tmp_path: Path) -> None:
    async with served(ledger.create_app(tmp_path / "l.jsonl")) as url, Client(f"{url}/mcp") as client:
        assert (await client.call_tool("fail", {"kind": "tool"})).is_error
        with pytest.raises(MCPError, match="failed as asked"):
            await client.call_tool("fail", {"kind": "protocol"})


@pytest.mark.parametrize(("mode", "effects"), [("hang", 0), ("swallow", 1)])
async def test_an_answer_that_never_comes_may_or_may_not_hide_an_effect(
    tmp_path: Path, mode: str, effects: int
) -> None:
    async with served(ledger.create_app(tmp_path / "l.jsonl")) as url, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.put(f"{url}/mode", json={"mode": mode})).status_code == 200
        waiting = asyncio.create_task(call(url, "append", key="a"))
        async with asyncio.timeout(10):
            while (await get(f"{url}/mode"))["held"] == 0:
                assert not waiting.done()
        waiting.cancel()
        await asyncio.wait({waiting})
        assert len((await get(f"{url}/ledger"))["entries"]) == effects


async def test_a_refusing_ledger_does_nothing_until_told_to_answer_again(tmp_path: Path) -> None:
    app = ledger.create_app(tmp_path / "l.jsonl", mode="refuse")
    async with served(app) as url, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.post(f"{url}/mcp", json={})).status_code == 503
        assert (await http.put(f"{url}/mode", json={"mode": "sideways"})).status_code == 400
        await http.put(f"{url}/mode", json={"mode": "normal"})
        assert (await call(url, "append", key="a"))["count"] == 1
