"""An Engine's status says what ClusterPolicies did in its namespace, and goes on with that after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.engine.fakes import FakeClock, FakeSink
from tests.unit.engine.test_policies import RULE, policy

from fairlead.api.policy import Policy
from fairlead.engine.enginestatus import MOST_COUNTED, EngineReport
from fairlead.engine.policies import Did
from fairlead.engine.status import StatusWriter

GUARDED = {
    "type": "GuardrailsInstalled",
    "status": "True",
    "reason": "Verified",
    "message": "forged decisions are refused",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "observedGeneration": 1,
}


class Namespace:
    """An Engine object as a cluster keeps it, and the ClusterPolicies that bind it."""

    def __init__(self, uid: str = "e1") -> None:
        self.sink = FakeSink()
        self.engine_uid = uid
        self.status: dict[str, Any] = {}
        self.policies: Mapping[str, Policy] = {}

    @property
    def engine_object(self) -> Mapping[str, Any]:
        return {"metadata": {"name": "default", "uid": self.engine_uid, "generation": 1}, "status": self.status}

    @asynccontextmanager
    async def process(self) -> AsyncIterator[EngineReport]:
        """An engine's process; what it has written when it ends stands in the status."""
        written = len(self.sink.of("default", "Engine"))
        writer = StatusWriter("Engine", self.sink, durable=lambda: asyncio.sleep(0))
        running = asyncio.create_task(writer.run())
        yield EngineReport(self, writer, owner="fairlead-engine-0", clock=FakeClock())
        await asyncio.sleep(0.01)
        running.cancel()
        if len(self.sink.of("default", "Engine")) > written:
            self.status = self.sink.of("default", "Engine")[-1]

    def counted(self) -> dict[str, tuple[int, int, int]]:
        rows = self.status.get("clusterPolicyCalls", [])
        return {row["name"]: (row["denied"], row["wouldDeny"], row["asked"]) for row in rows}


def bound(name: str) -> Policy:
    return policy(RULE, name=f"ClusterPolicy/{name}")


async def test_what_they_did_is_told_and_goes_on_after_a_restart() -> None:
    namespace = Namespace()
    async with namespace.process() as report:
        for what in (Did.DENIED, Did.WOULD_DENY, Did.WOULD_DENY, Did.ASKED, Did.SPENT):
            report.did(bound("a"), what)
        report.did(bound("b"), Did.WOULD_DENY)
    assert namespace.counted() == {"a": (1, 2, 1), "b": (0, 1, 0)}
    async with namespace.process() as report:
        report.did(bound("a"), Did.WOULD_DENY)
    assert namespace.counted() == {"a": (1, 3, 1), "b": (0, 1, 0)}
    async with namespace.process() as report:
        assert report.guarded(True)
    assert namespace.counted() == {"a": (1, 3, 1), "b": (0, 1, 0)}, "all of the engine's fields are written at once"


async def test_a_count_leaves_the_guardrails_as_they_were_found() -> None:
    namespace = Namespace()
    ready = {**GUARDED, "type": "Ready"}
    namespace.status = {"conditions": [ready, GUARDED]}
    async with namespace.process() as report:
        report.did(bound("a"), Did.DENIED)
    assert namespace.status["conditions"] == [GUARDED], "it has not tried yet, and Ready is the operator's"
    assert namespace.status["owner"] == "fairlead-engine-0"


async def test_another_engine_begins_anew_and_none_is_told_nothing() -> None:
    namespace = Namespace()
    async with namespace.process() as report:
        report.did(bound("a"), Did.DENIED)
        await asyncio.sleep(0.01)
        namespace.engine_uid, namespace.status = "", {}
        report.did(bound("a"), Did.DENIED)
        assert not report.guarded(True)
        namespace.engine_uid = "e2"
        report.did(bound("a"), Did.DENIED)
    assert namespace.counted() == {"a": (1, 0, 0)}


async def test_policies_that_bind_no_more_make_room_for_others() -> None:
    namespace = Namespace()
    row = {"denied": 1, "wouldDeny": 0, "asked": 0}
    rows = [{"name": f"p{n}", "uid": f"uid-ClusterPolicy/p{n}", **row} for n in range(MOST_COUNTED)]
    namespace.status = {"clusterPolicyCalls": rows}
    namespace.policies = {f"ClusterPolicy/{name}": bound(name) for name in ("p7", "new")}
    async with namespace.process() as report:
        report.did(bound("new"), Did.DENIED)
    assert namespace.counted() == {"p7": (1, 0, 0), "new": (1, 0, 0)}
