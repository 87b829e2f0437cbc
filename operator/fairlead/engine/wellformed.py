"""Stage 2 of a call's decision: is the request plain JSON of a sane size?

Requests come from templates, from models and, later, from pods. What the gate lets on is what `canonical_json` can
write and any server can read: no NaN (it would silently become null), no lone surrogate, no key that is not text.
"""

from __future__ import annotations

import math
from typing import Any

from fairlead.api.canonical import canonical_json

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64


def problem(request: Any) -> str:
    """Return what is wrong with a request, empty when nothing is. The text holds no content."""
    if found := _structure_problem(request):
        return found
    try:
        size = len(canonical_json(request))
    except TypeError:
        return "not JSON: a number over 64 bits, a lone surrogate, or no UTF-8"
    return f"{size} bytes, at most {MAX_BYTES} are allowed" if size > MAX_BYTES else ""


def _structure_problem(request: Any) -> str:
    level: list[Any] = [request]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    return "a key is not text"
                deeper.extend(value.values())
            elif isinstance(value, list):
                deeper.extend(value)
            elif isinstance(value, float):
                if not math.isfinite(value):
                    return "NaN and infinity are not JSON"
            elif value is not None and not isinstance(value, str | int):
                return f"a {type(value).__name__} is not JSON"
        if not deeper:
            return ""
        level = deeper
    return f"nested deeper than {MAX_DEPTH}"
