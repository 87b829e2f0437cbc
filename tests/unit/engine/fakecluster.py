"""The objects around runs, as an API server would keep them: what the engine writes is what it sees next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from tests.unit.engine.fakes import FakeSink

from fairlead.errors import NotFound


class FakeCluster(FakeSink):
    """WorkflowRuns by name, with the statuses that were written, and ConfigMaps.

    Attributes:
        broken: raised by the call that comes after so many good ones; None for never.
        on_run: told of every run that was created.
    """

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, dict[str, Any]] = {}
        self.config_maps: dict[str, dict[str, str]] = {}
        self.broken: tuple[int, Exception] | None = None
        self.on_run: Callable[[dict[str, Any]], None] = lambda raw: None

    def runs(self) -> Iterable[Mapping[str, Any]]:
        return list(self.objects.values())

    def add(self, raw: dict[str, Any]) -> dict[str, Any]:
        self.objects[raw["metadata"]["name"]] = raw
        return raw

    async def config_map(self, name: str) -> Mapping[str, str]:
        self._asked()
        if name not in self.config_maps:
            raise NotFound(404, name)
        return self.config_maps[name]

    async def create_run(self, run: Mapping[str, Any]) -> Mapping[str, Any]:
        self._asked()
        name = run["metadata"]["name"]
        if name not in self.objects:
            uid = str(uuid5(NAMESPACE_OID, f"{name}{len(self.written)}"))
            metadata = {**run["metadata"], "uid": uid, "generation": 1}
            self.on_run(self.add({**run, "metadata": metadata}))
        return self.objects[name]

    async def delete_run(self, name: str, uid: str) -> None:
        self._asked()
        if name in self.objects and self.objects[name]["metadata"]["uid"] == uid:
            del self.objects[name]

    async def write(self, kind: str, name: str, uid: str, status: Mapping[str, Any]) -> None:
        await super().write(kind, name, uid, status)
        if kind == "WorkflowRun" and name in self.objects:
            self.objects[name]["status"] = dict(status)

    def _asked(self) -> None:
        if self.broken is not None:
            good, error = self.broken
            if good == 0:
                raise error
            self.broken = (good - 1, error)


def rfc3339(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat().replace("+00:00", "Z")
