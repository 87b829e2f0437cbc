"""Objects that the engine makes for a run belong to it: what remains of them goes with the run's object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairlead.api import API_VERSION


def owned(name: str, spec: Mapping[str, Any], *, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of this name and spec; the run {name, uid} owns it."""
    owner = {"apiVersion": API_VERSION, "kind": "WorkflowRun", "name": run["name"], "uid": run["uid"]}
    return {"metadata": {"name": name, "ownerReferences": [owner]}, "spec": dict(spec)}
