"""Canonical JSON and digests: one byte form per value, so that digests can be compared."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

_OPTIONS = orjson.OPT_SORT_KEYS


def canonical_json(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value: sorted keys, UTF-8, no spaces.

    Raises:
        TypeError: the value is not JSON (NaN, bytes, non-string keys, a lone surrogate).
    """
    return orjson.dumps(value, option=_OPTIONS)


def digest(value: Any) -> str:
    """Return `sha256:<hex>` of the value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value)).hexdigest()
