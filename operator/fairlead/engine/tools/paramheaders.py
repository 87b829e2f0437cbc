"""Arguments that an MCP server wants repeated in headers, so that proxies can route by them (2026-07-28).

A property of the live input schema says so by `x-mcp-header`. The engine does not know live schemas; it asks for them
when a server refuses a call for want of such headers, which it does before anything is done.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

ANNOTATION = "x-mcp-header"
PREFIX = "Mcp-Param-"
MAX_DEPTH = 16
Declared = Mapping[tuple[str, ...], str]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
_PLAIN = re.compile(r"[\x20-\x7e]*")
_ENCODED = re.compile(r"=\?base64\?.*\?=")


def declared(schema: Any) -> Declared:
    """Return the annotated properties of an input schema by their paths. Only nested `properties` are looked at."""
    found: dict[tuple[str, ...], str] = {}
    level: list[tuple[tuple[str, ...], Any]] = [((), schema)]
    for _ in range(MAX_DEPTH):
        deeper: list[tuple[tuple[str, ...], Any]] = []
        for path, node in level:
            if not isinstance(node, dict):
                continue
            token = node.get(ANNOTATION)
            if path and isinstance(token, str) and _TOKEN.fullmatch(token):
                found[path] = token
            properties = node.get("properties")
            deeper += [((*path, name), sub) for name, sub in properties.items()] if isinstance(properties, dict) else []
        level = deeper
    return found


def headers(wanted: Declared, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers for arguments that are there and are text, a number or a boolean."""
    result = {}
    for path, token in wanted.items():
        value: Any = arguments
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, str | int | float):
            result[PREFIX + token] = _encode(str(value))
    return result


def _encode(text: str) -> str:
    """Return the text if it survives in a header as it is, else its base64 between markers."""
    if _PLAIN.fullmatch(text) and text == text.strip() and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="
