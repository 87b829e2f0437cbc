"""An MCP server as the engine sees it: which protocol version it speaks, whether it keeps sessions, what it offers.

Two generations are spoken. Since 2026-07-28 every request stands for itself and says version and client in `_meta`;
before, `initialize` opens a session that some servers name in a header. The first request to a server finds out.
Nothing is offered to servers: no sampling, no elicitation, no roots.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fairlead import __version__
from fairlead.engine.credentials import Destination
from fairlead.engine.dialer import Dialer, DialError, TooLarge
from fairlead.engine.tools import paramheaders
from fairlead.engine.tools.jsonrpc import LISTING, HttpStatus, Json, Reply, RpcError, Unreadable, ask
from fairlead.engine.tools.listing import (
    FRESH_SECONDS,
    LIST_CHANGED,
    Discovery,
    Listed,
    ToolDrift,
    digests_of,
    is_cursor,
    is_definition,
)
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
INVALID_PARAMS = -32602
HEADER_MISMATCH = -32020
MAX_LISTING_BYTES = 4 * 1024 * 1024
MAX_PAGES = 50
MAX_FUNCTIONS = 1000
FAILURES = (EgressDenied, DialError, TooLarge, HttpStatus, RpcError, Unreadable)
"""What an exchange with a server can end with."""

Result = TypeVar("Result")


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

    def __init__(self, dialer: Dialer, to: Destination, clean: Callable[[Any], Any] = lambda listed: listed) -> None:
        """Take the dialer and the endpoint; `clean` takes secrets out of what the server lists."""
        self.to = to
        self._dialer = dialer
        self._clean = clean
        self._connection: Connection | None = None
        self._listed: Listed | None = None
        self._changes = 0
        self._param_headers: dict[str, paramheaders.Declared] = {}
        self._ids = itertools.count(1)
        self._connecting = asyncio.Lock()

    async def call_tool(
        self,
        name: str,
        arguments: Json,
        *,
        headers: Mapping[str, str],
        meta: Json,
        end: float,
        max_bytes: int,
        repeatable: bool,
        pin: str | None = None,
    ) -> Json:
        """Call a function and return the raw CallToolResult.

        Args:
            name: the function.
            arguments: its arguments.
            headers: beside the protocol's own.
            meta: goes into `_meta`.
            end: `time.perf_counter()` at which the time is over.
            max_bytes: how much of the answer is read at most.
            repeatable: the call may be made twice.
            pin: over no connection is the call sent whose last listing has another digest for the function.

        Raises:
            NotConnected: the call was not sent.
            ToolDrift: nor was this one.
            FairleadError: what `jsonrpc.ask` raises.
        """
        params = {"name": name, "arguments": arguments, "_meta": meta}

        async def send(connection: Connection) -> Json:
            if pin is not None:
                await self._hold_against(pin, name, connection, end)
            wanted = paramheaders.headers(self._param_headers.get(name, {}), arguments)
            reply = await self._ask(
                connection, "tools/call", params, end=end, max_bytes=max_bytes, headers={**headers, **wanted}
            )
            return reply.result

        try:
            return await self._connected(send, end, repeatable=repeatable)
        except RpcError as error:
            if error.code != HEADER_MISMATCH or not await self._learn_headers(name, end):
                raise
        return await self._connected(send, end, repeatable=repeatable)

    @property
    def digests(self) -> Mapping[str, str] | None:
        """Return the digests that the server listed a moment ago over the connection that it has now, if it did."""
        listed = self._listed
        if listed is None or listed.connection is not self._connection:
            return None
        return listed.digests if time.perf_counter() - listed.asked_at <= FRESH_SECONDS else None

    async def list_tools(self, *, end: float) -> Discovery:
        """Return the protocol's version and all functions that the server lists. Raises as `call_tool` does.

        Raises:
            Unreadable: not a listing, or one without end.
        """

        async def send(connection: Connection) -> Discovery:
            return Discovery(connection.version, tuple(await self._list(connection, end)))

        return await self._connected(send, end, repeatable=True)

    async def _hold_against(self, pin: str, name: str, connection: Connection, end: float) -> None:
        if self._listed is None or self._listed.connection is not connection:
            try:
                await self._list(connection, end)
            except FAILURES as error:
                raise NotConnected(error) from error
        if self._listed is None:
            raise NotConnected(Unreadable("the functions change while they are listed"))
        if self._listed.digests.get(name) != pin:
            raise ToolDrift(f"the server defines {name} otherwise than it is pinned")

    async def _learn_headers(self, name: str, end: float) -> bool:
        """Look up which arguments a function wants in headers; tell whether that is news."""
        known = self._param_headers.get(name, {})
        try:
            found = await self.list_tools(end=end)
        except (NotConnected, *FAILURES):
            return False
        for tool in found.definitions:
            self._param_headers[str(tool["name"])] = paramheaders.declared(tool.get("inputSchema"))
        return self._param_headers.get(name, {}) != known

    async def _connected(
        self, send: Callable[[Connection], Awaitable[Result]], end: float, *, repeatable: bool
    ) -> Result:
        """Send over a connection; once more over a new one if the server says that it does not know the old one."""
        connection = await self._connect(end)
        try:
            return await send(connection)
        except (HttpStatus, RpcError) as error:
            if not self._lost(connection, error, repeatable=repeatable):
                raise
        return await send(await self._connect(end))

    async def _connect(self, end: float) -> Connection:
        if self._connection is not None:
            return self._connection
        try:
            async with self._connecting:
                if self._connection is None:
                    self._connection = await self._discover(end) or await self._initialize(end)
                return self._connection
        except FAILURES as error:
            raise NotConnected(error) from error

    def _lost(self, connection: Connection, error: HttpStatus | RpcError, *, repeatable: bool) -> bool:
        """Tell whether a refused request is to be sent again over a new connection.

        MCP has two ways to say that a session or version is unknown, both before anything is done. Any other refusal
        may be meant so too: then the next request connects anew, but only a repeatable one is sent twice for it.
        """
        code = error.code if isinstance(error, RpcError) else 0
        surely = code == UNSUPPORTED_VERSION or (error.status == 404 and bool(connection.session))
        perhaps = error.status in (400, 404) and code not in (INVALID_PARAMS, HEADER_MISMATCH)
        if (surely or perhaps) and self._connection is connection:
            self._connection = None
        return surely or (perhaps and repeatable)

    async def _list(self, connection: Connection, end: float) -> list[Json]:
        found: list[Json] = []
        cursor: Any = None
        asked_at, changes = time.perf_counter(), self._changes
        for _ in range(MAX_PAGES):
            params = {"cursor": cursor} if cursor is not None else {}
            reply = await self._ask(connection, LISTING, params, end=end)
            tools, cursor = reply.result.get("tools"), reply.result.get("nextCursor")
            if not isinstance(tools, list) or not is_cursor(cursor):
                raise Unreadable("the answer is no listing")
            found += map(self._clean, filter(is_definition, tools))
            if cursor is None:
                # What changed while it was listed is read again by whoever needs it.
                self._listed = Listed(connection, asked_at, digests_of(found)) if changes == self._changes else None
                return found
            if len(found) > MAX_FUNCTIONS:
                break
        raise Unreadable("the listing has no end")

    async def _discover(self, end: float) -> Connection | None:
        """Ask for the versions. An older server does not know the question, in whatever words it says so: None."""
        modern = Connection(MODERN)
        try:
            reply = await self._ask(modern, "server/discover", {}, end=end)
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

    async def _initialize(self, end: float) -> Connection:
        params = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT}
        reply = await self._ask(Connection(""), "initialize", params, end=end)
        version = reply.result.get("protocolVersion")
        if version not in LEGACY:
            raise Unreadable("the server speaks no version of MCP that is known here")
        connection = Connection(version, reply.headers.get("Mcp-Session-Id", ""))
        await self._send(connection, {"jsonrpc": "2.0", "method": "notifications/initialized"}, end=end)
        return connection

    async def _ask(
        self,
        connection: Connection,
        method: str,
        params: Json,
        *,
        end: float,
        max_bytes: int = MAX_LISTING_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        if connection.version == MODERN:
            params = params | {"_meta": params.get("_meta", {}) | MODERN_META}
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        return await self._send(connection, message, end=end, max_bytes=max_bytes, headers=headers)

    async def _send(
        self,
        connection: Connection,
        message: Json,
        *,
        end: float,
        max_bytes: int = MAX_LISTING_BYTES,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        return await ask(
            self._dialer,
            self.to,
            message,
            headers={**(headers or {}), **connection.headers(message["method"], message.get("params", {}))},
            timeout_seconds=end - time.perf_counter(),
            max_bytes=max_bytes,
            notified=self._notified,
        )

    def _notified(self, method: str) -> None:
        if method == LIST_CHANGED:
            self._changes += 1
            self._listed = None


def _shared(data: Any) -> bool:
    """Tell whether the versions that an error names include an older one that is spoken here."""
    supported = data.get("supported") if isinstance(data, dict) else None
    return not isinstance(supported, list) or any(version in LEGACY for version in supported)
