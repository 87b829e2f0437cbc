"""Is it plain JSON of a sane size? Asked of every request of a call, and of inputs, signals, results and bodies.

They come from people, templates, models, servers and pods. What is let on is what `canonical_json` can write, also
inside of something, and any server can read: no NaN (it would silently become null), no lone surrogate, no key that is
not text.
"""

from __future__ import annotations

import math
from typing import Any

from fairlead.api.canonical import MAX_DEPTH, canonical_json

MAX_BYTES = 1024 * 1024


def problem(value: Any, *, most: int = MAX_BYTES) -> str:
    """Return what is wrong with a value of at most so many bytes, empty when nothing is. The text holds no content."""
    if found := _structure_problem(value):
        return found
    try:
        size = len(canonical_json(value))
    except TypeError:
        return "not JSON: a number over 64 bits, a lone surrogate, or no UTF-8"
    return f"{size} bytes, at most {most} are allowed" if size > most else ""


def _structure_problem(value: Any) -> str:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return "a key is not text"
                deeper.extend(item.values())
            elif isinstance(item, list):
                deeper.extend(item)
            elif isinstance(item, float):
                if not math.isfinite(item):
                    return "NaN and infinity are not JSON"
            elif item is not None and not isinstance(item, str | int):
                return f"a {type(item).__name__} is not JSON"
        if not deeper:
            return ""
        level = deeper
    return f"nested deeper than {MAX_DEPTH} levels"
