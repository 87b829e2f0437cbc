"""The handbook searches well, and opens a ticket once for each client token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from examples.servers import handbook
from mcp.client import Client
from tests.servers.serving import call, get, served


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_handbook_serves_three_functions_in_both_protocol_generations(tmp_path: Path, mode: Any) -> None:
    async with served(handbook.create_app(tmp_path)) as url, Client(f"{url}/mcp", mode=mode) as client:
        assert {tool.name for tool in (await client.list_tools()).tools} == {"search", "create", "remove"}


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("I was charged twice for one invoice", "refunds-for-duplicate-charges"),
        ("Error 500 when logging in", "sign-in-problems-and-error-500-on-login"),
        ("the app crashes", "the-app-crashes-or-stays-blank"),
        ("VAT number on the invoice is wrong", "invoices-and-vat"),
        ("google calendar no longer syncs", "calendar-synchronisation"),
    ],
)
async def test_a_search_finds_the_section_that_answers(tmp_path: Path, query: str, first: str) -> None:
    async with served(handbook.create_app(tmp_path)) as url:
        found = await call(url, "search", query=query, limit=2)
    assert found["items"][0]["id"] == first
    assert len(found["items"]) <= 2
    assert found["items"][0].keys() == {"id", "text"}


async def test_a_search_for_nothing_known_finds_nothing(tmp_path: Path) -> None:
    async with served(handbook.create_app(tmp_path)) as url:
        assert await call(url, "search", query="zebra") == {"items": []}


async def test_a_client_token_opens_one_ticket_even_across_a_restart(tmp_path: Path) -> None:
    ticket = {"title": "Crash", "body": "It crashes.", "customer": "ada"}
    async with served(handbook.create_app(tmp_path)) as url:
        first = await call(url, "create", **ticket, clientToken="run-1")
        assert first == {"id": "T-1", **ticket}
        assert await call(url, "create", **ticket, clientToken="run-1") == first
        assert (await call(url, "create", **ticket))["id"] == "T-2"
    async with served(handbook.create_app(tmp_path)) as url:
        assert await call(url, "create", **ticket, clientToken="run-1") == first
        assert [open_["id"] for open_ in (await get(f"{url}/tickets"))["tickets"]] == ["T-1", "T-2"]


async def test_a_removed_ticket_is_gone_and_its_id_is_not_given_again(tmp_path: Path) -> None:
    ticket = {"title": "Crash", "body": "", "customer": "ada"}
    async with served(handbook.create_app(tmp_path)) as url, Client(f"{url}/mcp") as client:
        await client.call_tool("create", ticket)
        assert (await client.call_tool("remove", {"id": "T-1"})).structured_content == {"id": "T-1"}
        assert (await client.call_tool("remove", {"id": "T-1"})).is_error
        created = await client.call_tool("create", ticket)
        assert created.structured_content == {"id": "T-2", **ticket}


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 421), ("0.0.0.0", 200)])
async def test_only_a_server_on_the_loopback_address_insists_on_its_name(
    tmp_path: Path, host: str, status: int
) -> None:
    ping = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"host": "handbook.support.svc:8083", "accept": "application/json, text/event-stream"}
    async with served(handbook.create_app(tmp_path, host=host)) as url, httpx.AsyncClient() as client:
        assert (await client.post(f"{url}/mcp", json=ping, headers=headers)).status_code == status
