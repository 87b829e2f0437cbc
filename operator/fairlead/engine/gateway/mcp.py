"""MCP as containers speak it to the gateway: a server without sessions, for the functions that the step names.

What a container sees of a function is the contract's text, never the live one. Whether it asks for a function that it
was not shown, or may not call, it hears the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairlead import __version__
from fairlead.api.canonical import canonical_json
from fairlead.api.tool import Function, Tool
from fairlead.engine.tools.mcp import HEADER_MISMATCH, INVALID_PARAMS, LEGACY, MODERN, UNSUPPORTED_VERSION
from fairlead.flow.schema import findings
from fairlead.flow.state import CallState

Json = dict[str, Any]

INVALID_REQUEST, METHOD_NOT_FOUND = -32600, -32601
_VERSION = "io.modelcontextprotocol/protocolVersion"
_CAPABILITIES: Json = {"tools": {}}
_SERVER = {"name": "fairlead", "version": __version__}
_TOLD_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a message; None to one that needs none."""

    body: Json | None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """The message asks for a call of a function."""

    id: Any
    function: str
    arguments: Json


def read(message: Any, headers: Mapping[str, str], functions: Mapping[str, Function]) -> Reply | Wanted:
    """Return the answer to a message, or the call that it asks for.

    Args:
        message: the JSON-RPC message.
        headers: those of the request, by their names in lower case.
        functions: what the step offers.
    """
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        return _error(None, INVALID_REQUEST, "a JSON-RPC request is expected", status=400)
    method, asked_as, params = message["method"], message.get("id"), message.get("params") or {}
    if not isinstance(params, dict):
        return _error(asked_as, INVALID_PARAMS, "params: an object is expected", status=400)
    for header, said in (("mcp-method", method), ("mcp-name", params.get("name"))):
        if header in headers and headers[header] != said:
            return _error(asked_as, HEADER_MISMATCH, f"{header} and the body differ", status=400)
    if "id" not in message:
        return Reply(None, 202)
    version = (params.get("_meta") or {}).get(_VERSION, MODERN) if isinstance(params.get("_meta"), dict) else MODERN
    if version != MODERN:
        known = {"supported": [MODERN], "requested": version}
        return _error(asked_as, UNSUPPORTED_VERSION, "this version is not spoken in _meta", data=known, status=400)
    match method:
        case "initialize":
            wanted = params.get("protocolVersion")
            return _result(
                asked_as,
                {
                    "protocolVersion": wanted if wanted in LEGACY else LEGACY[0],
                    "capabilities": _CAPABILITIES,
                    "serverInfo": _SERVER,
                },
            )
        case "server/discover":
            found = {"supportedVersions": [MODERN], "capabilities": _CAPABILITIES, "serverInfo": _SERVER}
            return _result(asked_as, _complete(found | {"ttlMs": 0, "cacheScope": "private"}))
        case "ping":
            return _result(asked_as, _complete({}))
        case "tools/list":
            listed = {"tools": [_definition(one) for one in functions.values()]}
            return _result(asked_as, _complete(listed | {"ttlMs": 0, "cacheScope": "private"}))
        case "tools/call":
            return _call(asked_as, params, functions)
        case _:
            return _error(asked_as, METHOD_NOT_FOUND, "there is no such method", status=404)


def offered(tool: Tool | None, names: list[str] | None) -> dict[str, Function]:
    """Return the functions of a Tool's contract that a step names, or all of them, by name."""
    contract = tool.spec.functions if tool is not None else []
    return {one.name: one for one in contract if names is None or one.name in names}


def answer(wanted: Wanted, call: CallState) -> Json:
    """Return what came of a call; of a denied one nothing but that it was."""
    if call.denied is not None:
        return _told(wanted.id, "not permitted", failed=True)
    if call.error is not None:
        said = f"error: {call.error.error_class}: {call.error.message}"[:_TOLD_CHARACTERS]
        return _told(wanted.id, said, failed=True)
    result = call.result
    only_text = isinstance(result, dict) and list(result) == ["text"] and isinstance(result["text"], str)
    text = result["text"] if only_text else canonical_json(result).decode()
    return _told(wanted.id, text, structured=result if isinstance(result, dict) else None)


def _call(asked_as: Any, params: Json, functions: Mapping[str, Function]) -> Reply | Wanted:
    name, arguments = params.get("name"), params.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict | None):
        return _error(asked_as, INVALID_PARAMS, "name: a text, and arguments: an object, are expected", status=400)
    function, given = functions.get(name), arguments or {}
    problems = findings(function.input.schema_, given) if function is not None and function.input is not None else []
    if problems:
        said = f"The call was not made: {'; '.join(problems)}"[:_TOLD_CHARACTERS]
        return Reply(_told(asked_as, said, failed=True))
    return Wanted(asked_as, name, given)


def _definition(function: Function) -> Json:
    schema = function.input.schema_ if function.input is not None else {"type": "object"}
    return {"name": function.name, "description": function.description or "", "inputSchema": schema}


def _told(asked_as: Any, text: str, *, failed: bool = False, structured: Json | None = None) -> Json:
    result: Json = {"content": [{"type": "text", "text": text}], "isError": failed}
    if structured is not None:
        result["structuredContent"] = structured
    return {"jsonrpc": "2.0", "id": asked_as, "result": _complete(result)}


def _complete(result: Json) -> Json:
    return result | {"resultType": "complete"}


def _result(asked_as: Any, result: Json) -> Reply:
    return Reply({"jsonrpc": "2.0", "id": asked_as, "result": result})


def _error(asked_as: Any, code: int, message: str, *, data: Any = None, status: int = 200) -> Reply:
    error = {"code": code, "message": message} | ({"data": data} if data is not None else {})
    return Reply({"jsonrpc": "2.0", "id": asked_as, "error": error}, status)
