"""Tools as the gate calls them: one function call, one Outcome. A failure is an Outcome too, never an exception.

What a failure means depends on the effect. A Read, or a call with an idempotency key, may be made again: it timed out
or was unavailable. Any other call whose request may have arrived without a clear answer is OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

from fairlead.api.canonical import MAX_DEPTH, canonical_json, too_deep
from fairlead.api.reasons import ErrorClass
from fairlead.api.tool import Function, Mcp, Tool, ToolLimits
from fairlead.engine.credentials import destination, known_secrets, scrub
from fairlead.engine.dialer import Dialer, DialError, Reached, TooLarge
from fairlead.engine.egress import check_rules
from fairlead.engine.outcomes import failed, refused, retry_after_ms
from fairlead.engine.seams import Resources
from fairlead.engine.tools.jsonrpc import HttpStatus, Json, RpcError, Unreadable
from fairlead.engine.tools.listing import FRESH_SECONDS, Discovery, ToolDrift
from fairlead.engine.tools.mcp import FAILURES, McpServer, NotConnected
from fairlead.errors import CredentialMissing, CredentialPending, EgressDenied, FairleadError, StepError
from fairlead.flow.calls import Call, Outcome
from fairlead.policy.decide import find_function
from fairlead.policy.decision import Definitions

RESERVED_HEADERS = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "cookie", "host", "last-event-id"}
    | {"te", "trailer", "transfer-encoding", "upgrade", "user-agent", "authorization", "proxy-authorization"}
)
_SPARE_BYTES = 64 * 1024  # an answer holds its result twice, as structure and as text, and some words around it


class ToolCaller:
    """Calls functions on MCP servers. Knows each server's protocol, session and listing until it is another one."""

    def __init__(self, dialer: Dialer, resources: Resources) -> None:
        self._dialer = dialer
        self._resources = resources
        self._servers: dict[str, tuple[Mcp, McpServer]] = {}
        self._listing: dict[McpServer, asyncio.Task[Discovery]] = {}

    async def call(
        self,
        name: str,
        tool: Tool,
        call: Call,
        *,
        timeout_seconds: float,
        idempotency_key: str | None,
        trace_parent: str,
    ) -> Outcome:
        """Call one function once and return what came of it.

        Args:
            name: the Tool's name.
            tool: the Tool.
            call: a call of kind Tool, to a function of the contract.
            timeout_seconds: for everything, connecting included.
            idempotency_key: goes where the contract says; None without `idempotency`.
            trace_parent: goes into `_meta`, so that the server's spans join the run's trace.
        """
        function = find_function(tool, call.function)
        if function is None:
            return failed(ErrorClass.INVALID, f"{call.function} is not in the contract of Tool {name}")
        if _is_taken(tool, function):
            return failed(ErrorClass.INVALID, "idempotency.header has another meaning already")
        limits = tool.spec.limits or ToolLimits()
        started = time.perf_counter()
        repeatable = function.effect == "Read" or idempotency_key is not None
        arguments, headers = _with_key(call, function, idempotency_key)
        try:
            result = await self._server(name, tool).call_tool(
                function.name,
                arguments,
                headers=headers,
                meta={"traceparent": trace_parent},
                end=started + timeout_seconds,
                max_bytes=_SPARE_BYTES + 4 * limits.max_result_bytes,
                repeatable=repeatable,
                pin=function.pin,
            )
        except NotConnected as error:
            return _failure(error.cause, name, repeatable=True, started=started)  # the call itself was not sent
        except (*FAILURES, ToolDrift, CredentialMissing, CredentialPending) as error:
            return _failure(error, name, repeatable=repeatable, started=started)
        return _outcome(result, name, limits.max_result_bytes, started)

    async def discover(self, name: str, tool: Tool) -> Discovery:
        """Ask the server which protocol it speaks and which functions it has.

        Raises:
            EgressDenied, CredentialMissing, CredentialPending: the server may not be asked.
            StepError: it did not answer, or not as MCP says.
        """
        check_rules(self._resources, tool)
        timeout_seconds = (tool.spec.limits or ToolLimits()).timeout_seconds
        try:
            return await self._server(name, tool).list_tools(end=time.perf_counter() + timeout_seconds)
        except (NotConnected, *FAILURES) as error:
            cause = error.cause if isinstance(error, NotConnected) else error
            if isinstance(cause, EgressDenied):
                raise cause from None
            raise StepError(ErrorClass.UNAVAILABLE, f"Tool {name}: {cause}") from error

    def known(self, name: str, tool: Tool) -> Definitions:
        """Return what is known of that without asking anybody. Never raises."""
        try:
            return Definitions(self._server(name, tool).digests)
        except (EgressDenied, CredentialMissing, CredentialPending):
            return Definitions()

    async def definitions(self, name: str, tool: Tool) -> Definitions:
        """Return how the server defines its functions now, at most `FRESH_SECONDS` ago. Never raises."""
        try:
            server = self._server(name, tool)
            if server.digests is None:
                await self._listed(server)
        except (NotConnected, *FAILURES, CredentialMissing, CredentialPending) as error:
            return Definitions(message=str(error))
        return Definitions(server.digests, "what it listed does not count any more")

    async def _listed(self, server: McpServer) -> Discovery:
        """Have the server list its functions, once for all who wait for it."""
        if (task := self._listing.get(server)) is None:
            # no await between the look-up and this line: nobody else starts the same one
            task = asyncio.create_task(server.list_tools(end=time.perf_counter() + FRESH_SECONDS))
            self._listing[server] = task
            task.add_done_callback(lambda done: self._forget(server, done))
        return await asyncio.shield(task)  # one caller that goes away does not take the answer from the others

    def _forget(self, server: McpServer, done: asyncio.Task[Discovery]) -> None:
        del self._listing[server]
        if not done.cancelled():
            done.exception()  # so that one nobody waits for any more is not reported as lost

    def _clean(self, listed: Any) -> Any:
        return scrub(listed, known_secrets(self._resources))

    def _server(self, name: str, tool: Tool) -> McpServer:
        """Return the Tool's server; whatever its spec says of it anew makes it another one."""
        to = destination(self._resources, tool)
        mcp, server = self._servers.get(name, (None, None))
        if server is None or (mcp, server.to.url, server.to.private) != (tool.spec.mcp, to.url, to.private):
            server = McpServer(self._dialer, to, self._clean)
            self._servers[name] = (tool.spec.mcp, server)
        server.to = to  # a rotated credential
        return server


def _with_key(call: Call, function: Function, key: str | None) -> tuple[Json, dict[str, str]]:
    """Return arguments and headers with the key where the contract wants it.

    A token that the caller gave stays: the recorded request holds it, so that it is the same whenever it is sent.
    """
    arguments: Json = function.sent(call.request.get("arguments") or {})
    if key is None or function.idempotency is None:
        return arguments, {}
    if function.idempotency.argument is not None:
        arguments[function.idempotency.argument] = arguments.get(function.idempotency.argument) or key
    return arguments, {function.idempotency.header: key} if function.idempotency.header is not None else {}


def _is_taken(tool: Tool, function: Function) -> bool:
    header = (function.idempotency.header or "").lower() if function.idempotency else ""
    credential = tool.spec.credential.header.lower() if tool.spec.credential else ""
    return header in RESERVED_HEADERS or header.startswith("mcp-") or bool(header and header == credential)


def _outcome(result: Json, name: str, max_bytes: int, started: float) -> Outcome:
    """Read a CallToolResult: the structured content, else {text}. Media are left out."""
    if result.get("resultType", "complete") != "complete":
        message = f"Tool {name} asked for input, which is refused"
        return failed(ErrorClass.TOOL_ERROR, message, reason="InputRequired", started=started)
    structured = result.get("structuredContent")
    value = structured if structured is not None else {"text": _text(result.get("content"))}
    if too_deep(value):
        message = f"Tool {name}: the result is nested deeper than {MAX_DEPTH} levels"
        return failed(ErrorClass.TOOL_ERROR, message, reason="TooDeep", started=started)
    if len(canonical_json(value)) > max_bytes:
        message = f"Tool {name}: the result is larger than {max_bytes} bytes"
        return failed(ErrorClass.TOOL_ERROR, message, reason="TooLarge", started=started)
    if result.get("isError"):
        return replace(failed(ErrorClass.TOOL_ERROR, f"Tool {name} reported an error", started=started), result=value)
    return Outcome(value, duration_ms=int((time.perf_counter() - started) * 1000))


def _text(content: object) -> str:
    parts = content if isinstance(content, list) else []
    return "\n".join(
        str(part.get("text", "")) for part in parts if isinstance(part, dict) and part.get("type") == "text"
    )


def _failure(error: FairleadError, name: str, *, repeatable: bool, started: float) -> Outcome:
    """Say what an exchange that brought no result means.

    Args:
        error: what went wrong.
        name: the Tool's name.
        repeatable: whether the call may be made again although it may have arrived.
        started: `time.perf_counter()` at the start.
    """
    message, unknown = f"Tool {name}: {error}", ErrorClass.OUTCOME_UNKNOWN
    match error:
        case DialError(reached=Reached.NOTHING):
            return failed(ErrorClass.UNAVAILABLE, message, started=started)
        case DialError(timed_out=timed_out):
            error_class = ErrorClass.TIMEOUT if timed_out else ErrorClass.UNAVAILABLE
            return failed(error_class if repeatable else unknown, message, started=started)
        case ToolDrift():
            return failed(ErrorClass.DENIED, message, reason=error.reason, started=started)
        case TooLarge():
            return failed(ErrorClass.TOOL_ERROR, message, reason="TooLarge", started=started)
        case HttpStatus(status=429):
            return failed(ErrorClass.RATE_LIMITED, message, started=started, after_ms=retry_after_ms(error.answer))
        case HttpStatus(status=status) if status >= 500:  # a proxy may say so after the request has passed it
            error_class = ErrorClass.UNAVAILABLE if repeatable else unknown
            return failed(error_class, message, started=started, after_ms=retry_after_ms(error.answer))
        case HttpStatus():
            return failed(ErrorClass.TOOL_ERROR, message, started=started)
        case RpcError(text=text):
            return replace(failed(ErrorClass.TOOL_ERROR, message, started=started), result={"text": text[:4096]})
        case Unreadable():
            return failed(ErrorClass.TOOL_ERROR if repeatable else unknown, message, started=started)
        case _:
            return refused(error)


__all__ = ["Discovery", "ToolCaller"]
