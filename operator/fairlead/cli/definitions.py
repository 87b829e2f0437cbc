"""How functions are defined now: asked of the engine, or of an MCP server at a URL by the code that the engine runs."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.cli.access import Access

TIMEOUT_SECONDS = 30.0

Definition = dict[str, Any]


def of_tools(names: list[str], *, namespace: str, context: str) -> dict[str, list[Definition]]:
    """Return what the servers of these Tools list, by the Tool's name, as the engine of the namespace is told."""
    from fairlead.cli.access import on_cluster

    async def work(access: Access) -> dict[str, list[Definition]]:
        return {name: await access.definitions(name) for name in names}

    return on_cluster(context, namespace, work)


def at(url: str, *, token_env: str = "") -> list[Definition]:
    """Return what the MCP server at a URL lists.

    Args:
        url: its endpoint, for example https://mcp.example.com/mcp.
        token_env: the environment variable with the bearer token that it wants.

    Raises:
        CommandFailed: it does not answer as MCP says.
    """
    headers = {}
    if token_env:
        if not (token := os.environ.get(token_env, "")):
            raise CommandFailed(Exit.USAGE, f"the environment has no {token_env}")
        headers = {"Authorization": f"Bearer {token}"}
    return asyncio.run(_ask(url, headers))


async def _ask(url: str, headers: dict[str, str]) -> list[Definition]:
    from fairlead.engine.credentials import Destination
    from fairlead.engine.dialer import Dialer
    from fairlead.engine.egress import check_url
    from fairlead.engine.tools.mcp import McpServer
    from fairlead.errors import FairleadError

    dialer = Dialer()
    try:
        # Who gives an address at the terminal means it: it may be a private one.
        parsed, private = check_url(url, own=True, allowed_private=())
        server = McpServer(dialer, Destination(parsed, private, headers))
        found = await server.list_tools(end=time.perf_counter() + TIMEOUT_SECONDS)
    except FairleadError as error:
        raise CommandFailed(Exit.UNREACHABLE, f"{url}: {error}") from error
    finally:
        await dialer.close()
    return list(found.definitions)
