"""What an MCP server lists: its functions as they are defined now, each with the digest that a pin compares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fairlead.api.canonical import canonical_json, digest
from fairlead.engine.tools.jsonrpc import Json
from fairlead.errors import FairleadError

LIST_CHANGED = "notifications/tools/list_changed"

FRESH_SECONDS = 5.0
"""So old a listing may be that a call is decided by, counted from when it was asked for."""


class ToolDrift(FairleadError):
    """The server defines a pinned function otherwise, or not at all; the call was not sent."""

    reason = "ToolDrift"


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a server says about itself: the protocol's version, and all functions that it lists, as it wrote them."""

    protocol_version: str
    definitions: tuple[Json, ...]

    @property
    def digests(self) -> Mapping[str, str]:
        """Return the digest of each function, by name."""
        return digests_of(self.definitions)


@dataclass(frozen=True, slots=True)
class Listed:
    """The digests of a listing: the connection that it came by, and `time.perf_counter()` when it was asked for."""

    connection: object
    asked_at: float
    digests: Mapping[str, str]


def digests_of(definitions: Iterable[Json]) -> dict[str, str]:
    """Return the digest of each definition by the function's name, whatever the order.

    "" stands for a name that is listed twice, which no pin fits.
    """
    digests: dict[str, str] = {}
    for definition in definitions:
        name = str(definition["name"])
        digests[name] = "" if name in digests else digest(definition)
    return digests


def is_definition(value: object) -> bool:
    """Tell whether an entry of a listing defines a function, in JSON that can be written again and has a digest.

    What is nested so deep that it has none is meant to be read by nobody.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return False
    try:
        return bool(canonical_json(value))
    except TypeError:
        return False


def is_cursor(value: object) -> bool:
    """Tell whether a listing says where it goes on so that it can be asked, or that it does not (None)."""
    return value is None or (isinstance(value, str) and value == value.encode(errors="ignore").decode())
