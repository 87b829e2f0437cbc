"""Servers on the loopback interface within a test, and a client to call an MCP server with: no process, no waiting."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from starlette.types import ASGIApp


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an application on a free loopback port for as long as the context lasts; the context gives its URL."""
    # The socket listens before the server starts, so no request comes too early.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


async def call(url: str, name: str, *, headers: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Call a function of the MCP server at a URL and return its structured result."""
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
    ):
        result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def get(url: str) -> dict[str, Any]:
    """Fetch a JSON object."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        return dict((await http.get(url)).raise_for_status().json())
