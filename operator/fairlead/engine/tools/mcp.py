"""An MCP server as the engine sees it: which protocol version it speaks, whether it keeps sessions, what it offers.

Two generations are spoken. Since 2026-07-28 every request stands for itself and says version and client in `_meta`;
before, `initialize` opens a session that some servers name in a header. The first request to a server finds out.
Nothing is offered to servers: no sampling, no elicitation, no roots.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead import __version__
from fairlead.engine.credentials import Destination
from fairlead.engine.dialer import Dialer, DialError, TooLarge
from fairlead.engine.tools.jsonrpc import HttpStatus, Json, Reply, RpcError, Unreadable, ask
from fairlead.errors import EgressDenied, FairleadError

MODERN = "2026-07-28"
LEGACY = ("2025-11-25", "2025-06-18", "2025-03-26")
"""Newest first. The first is what `initialize` proposes; the server may choose any of them."""

CLIENT = {"name": "fairlead", "version": __version__}
MODERN_META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}
UNSUPPORTED_VERSION = -32022
MAX_LISTING_BYTES = 4 * 1024 * 1024
MAX_PAGES = 50
MAX_FUNCTIONS = 1000


class NotConnected(FairleadError):
    """The server could not be asked what it speaks; whatever was to follow has not been sent."""

    reason = "NotConnected"

    def __init__(self, cause: FairleadError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Connection:
    """What a server was found to speak, and the session that it keeps for us, if it does."""

    version: str
    session: str = ""

    def headers(self, method: str, params: Json) -> dict[str, str]:
        """Return the protocol's headers. They repeat what the body says; both are ours, so they agree."""
        headers = {"Mcp-Protocol-Version": self.version} if self.version else {}
        if self.version == MODERN:
            headers["Mcp-Method"] = method
            if "name" in params:
                headers["Mcp-Name"] = params["name"]  # a FunctionName of the contract: plain ASCII
        return headers | ({"Mcp-Session-Id": self.session} if self.session else {})


class McpServer:
    """One MCP endpoint. Connects when it is first needed, and again when the server has forgotten us."""

    def __init__(self, dialer: Dialer, to: Destination) -> None:
        self.to = to
        self._dialer = dialer
        self._connection: Connection | None = None
        self._ids = itertools.count(1)
        self._connecting = asyncio.Lock()

    async def connect(self, timeout_seconds: float, *, anew: bool = False) -> Connection:
        """Find out what the server speaks, unless that is known.

        Raises:
            NotConnected: it did not say; holds what `jsonrpc.ask` raised.
        """
        if self._connection is not None and not anew:
            return self._connection
        try:
            async with self._connecting:
                if anew or self._connection is None:
                    self._connection = await self._discover(timeout_seconds) or await self._initialize(timeout_seconds)
                return self._connection
        except (EgressDenied, DialError, TooLarge, HttpStatus, RpcError, Unreadable) as error:
            raise NotConnected(error) from error

    def lost(self, connection: Connection, error: HttpStatus | RpcError) -> bool:
        """Tell whether the server has refused a request because it does not know this session or version any more.

        MCP has two ways to say so, both before anything is done. Any other refusal of this kind may be meant so too,
        so that the next request connects anew, but this one is not sent twice for it.
        """
        unknown_session = error.status == 404 and bool(connection.session)
        unknown_version = isinstance(error, RpcError) and error.code == UNSUPPORTED_VERSION
        if self._connection is connection and (error.status in (400, 404) or unknown_version):
            self._connection = None
        return unknown_session or unknown_version

    async def call_tool(
        self,
        connection: Connection,
        name: str,
        arguments: Json,
        *,
        headers: Mapping[str, str],
        meta: Json,
        timeout_seconds: float,
        max_bytes: int,
    ) -> Json:
        """Call a function and return the raw CallToolResult. Raises what `jsonrpc.ask` raises."""
        params = {"name": name, "arguments": arguments, "_meta": meta}
        reply = await self._ask(
            connection, "tools/call", params, timeout_seconds=timeout_seconds, max_bytes=max_bytes, headers=headers
        )
        return reply.result

    async def list_tools(self, connection: Connection, timeout_seconds: float) -> list[Json]:
        """Return all functions that the server lists, page by page. Raises what `jsonrpc.ask` raises.

        Raises:
            Unreadable: not a listing, or one without end.
        """
        found: list[Json] = []
        cursor: Any = None
        for _ in range(MAX_PAGES):
            params = {"cursor": cursor} if cursor is not None else {}
            reply = await self._ask(connection, "tools/list", params, timeout_seconds=timeout_seconds)
            tools, cursor = reply.result.get("tools"), reply.result.get("nextCursor")
            if not isinstance(tools, list):
                raise Unreadable("the answer is no listing")
            found += [tool for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]
            if cursor is None:
                return found
            if len(found) > MAX_FUNCTIONS:
                break
        raise Unreadable("the listing has no end")

    async def _discover(self, timeout_seconds: float) -> Connection | None:
        """Ask for the versions. An older server does not know the question, in whatever words it says so: None."""
        modern = Connection(MODERN)
        try:
            reply = await self._ask(modern, "server/discover", {}, timeout_seconds=timeout_seconds)
        except RpcError as error:
            if error.code == UNSUPPORTED_VERSION and not _shared(error.data):
                raise
            return None
        except HttpStatus as error:
            if error.status in (401, 403, 429) or error.status >= 500:
                raise
            return None
        except Unreadable:
            return None
        versions = reply.result.get("supportedVersions")
        return modern if isinstance(versions, list) and MODERN in versions else None

    async def _initialize(self, timeout_seconds: float) -> Connection:
        params = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT}
        reply = await self._ask(Connection(""), "initialize", params, timeout_seconds=timeout_seconds)
        version = reply.result.get("protocolVersion")
        if version not in LEGACY:
            raise Unreadable("the server speaks no version of MCP that is known here")
        connection = Connection(version, reply.headers.get("Mcp-Session-Id", ""))
        await self._send(
            connection, {"jsonrpc": "2.0", "method": "notifications/initialized"}, timeout_seconds=timeout_seconds
        )
        return connection

    async def _ask(
        self,
        connection: Connection,
        method: str,
        params: Json,
        *,
        timeout_seconds: float,
        max_bytes: int = MAX_LISTING_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        if connection.version == MODERN:
            params = params | {"_meta": params.get("_meta", {}) | MODERN_META}
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        return await self._send(
            connection, message, timeout_seconds=timeout_seconds, max_bytes=max_bytes, headers=headers
        )

    async def _send(
        self,
        connection: Connection,
        message: Json,
        *,
        timeout_seconds: float,
        max_bytes: int = MAX_LISTING_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return await ask(
            self._dialer,
            self.to,
            message,
            headers={**(headers or {}), **connection.headers(message["method"], message.get("params", {}))},
            timeout_seconds=timeout_seconds,
            max_bytes=max_bytes,
        )


def _shared(data: Any) -> bool:
    """Tell whether the versions that an error names include an older one that is spoken here."""
    supported = data.get("supported") if isinstance(data, dict) else None
    return not isinstance(supported, list) or any(version in LEGACY for version in supported)
