"""What commands print: tables for people; JSON, YAML and names for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def show(value: Any, form: Format, *, as_table: Callable[[], str], name: str) -> str:
    """Return the text of a result.

    Args:
        value: what JSON and YAML show.
        form: what was asked for.
        as_table: makes the text for people.
        name: what `-o name` shows.
    """
    match form:
        case Format.JSON:
            return json.dumps(value, indent=2, ensure_ascii=False)
        case Format.YAML:
            import yaml

            return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip()
        case Format.NAME:
            return name
        case Format.TABLE:
            return as_table()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns in the manner of kubectl: upper-case headers, three spaces between."""
    lines = [list(headers), *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    padded = ("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)


def age(seconds: float) -> str:
    """Return a duration in the manner of kubectl: 45s, 12m, 7h, 3d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def duration(milliseconds: float) -> str:
    """Return a duration for people: 12ms, 3.4s, 2m05s, 1h02m."""
    if milliseconds < 1000:
        return f"{int(milliseconds)}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f}s"
    seconds = int(milliseconds // 1000)
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


_INVISIBLE = frozenset({0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0}).union(
    range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)
)
"""Printable characters, to Unicode, that show nothing: fillers and variation selectors."""


def visible(text: str) -> str:
    """Return text in which every character shows that would steer the terminal, hide, or turn others around."""
    return "".join(
        char if char == "\n" or (char.isprintable() and ord(char) not in _INVISIBLE) else f"\\u{{{ord(char):x}}}"
        for char in text
    )


def plain(text: str) -> str:
    """Return text that cannot steer the terminal: what a model or a tool said may hold escape sequences."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
