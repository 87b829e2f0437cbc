"""Large values of entries stand apart from the journal: by digest, once per store, compressed.

`put_aside` runs when an entry is appended, `put_back` when it is loaded; nobody above the store sees the difference.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fairlead.api.canonical import canonical_json
from fairlead.errors import StoreError

INLINE_BYTES = 4096
"""A value whose canonical JSON is longer goes to the payloads."""

MOST_BYTES = 32 * 1024 * 1024
"""A larger value is not read back: no run makes one (flow/values.py), but earlier versions had no bound."""

PUT_ASIDE = ("result", "output", "value", "input", "inputs")
"""The keys of an entry's data that hold values of users, models and tools."""


def put_aside(data: Mapping[str, Any]) -> tuple[bytes, dict[str, str], dict[str, bytes]]:
    """Split an entry's data.

    Returns:
        The bytes of what stays, the digests of what went ({key: digest}), and the bytes that went ({digest: bytes}).

    Raises:
        TypeError: the data is not JSON.
    """
    whole = canonical_json(data)
    if len(whole) <= INLINE_BYTES:
        return whole, {}, {}
    refs: dict[str, str] = {}
    bodies: dict[str, bytes] = {}
    for key in PUT_ASIDE:
        if key in data:
            body = canonical_json(data[key])
            if len(body) > INLINE_BYTES:
                refs[key] = "sha256:" + hashlib.sha256(body).hexdigest()
                bodies[refs[key]] = body
    if not refs:
        return whole, {}, {}
    return canonical_json({key: value for key, value in data.items() if key not in refs}), refs, bodies


def put_back(data: bytes, refs: bytes | None, read: Callable[[str], Any]) -> dict[str, Any]:
    """Return the data as it was appended; `read` returns the value of a digest."""
    value: dict[str, Any] = orjson.loads(data)
    if refs is not None:
        value |= {key: read(digest) for key, digest in orjson.loads(refs).items()}
    return value


def compress(body: bytes) -> bytes:
    """Return the stored form of a payload: zlib at the level where speed matters more than the last percent."""
    return zlib.compress(body, 1)


def expand(data: bytes) -> bytes:
    """Return the canonical JSON of a payload.

    Raises:
        StoreError: it is too large to be held in memory, or not whole.
    """
    stream = zlib.decompressobj()
    body = stream.decompress(data, MOST_BYTES)
    if not stream.eof:
        raise StoreError(f"a value in the journal has more than {MOST_BYTES} bytes, or is not whole")
    return body


def value_of(data: bytes) -> Any:
    """Return the value of a payload.

    Raises:
        StoreError: as `expand`.
    """
    return orjson.loads(expand(data))
