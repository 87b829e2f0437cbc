"""Asking the API server: readiness and whole objects, without starting kubectl for each question."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any

from tests.cluster.layout import Layout

PORT = 6443
_TIMEOUT_SECONDS = 5


def get(layout: Layout, path: str) -> dict[str, Any] | None:
    """Return the object at a path as the administrator sees it; None without an answer or without the object."""
    body = _get(layout, path)
    return None if body is None else json.loads(body)


def ready(layout: Layout) -> bool:
    """Tell whether the API server says so of itself."""
    return _get(layout, "/readyz") == b"ok"


def has_condition(layout: Layout, path: str, condition: str) -> bool:
    """Tell whether an object exists and has a condition that is True."""
    conditions = (get(layout, path) or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)


def _get(layout: Layout, path: str) -> bytes | None:
    try:
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
        connection = http.client.HTTPSConnection(layout.node_address, PORT, context=context, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):  # not up yet, or no longer
        return None
    return body if response.status == 200 else None
