"""`GuardrailsInstalled`: told from what the cluster does with a forged decision, not from what is declared there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeClock, FakeSink

from fairlead.api.approval import Approval
from fairlead.api.policy import Policy
from fairlead.engine.enginestatus import EngineReport
from fairlead.engine.guardrails import Guardrails
from fairlead.engine.status import StatusWriter
from fairlead.errors import Unreachable


class Desk:
    """A cluster that refuses forged decisions, or does not, or does not answer."""

    def __init__(self) -> None:
        self.refuses = True
        self.error: Exception | None = None
        self.tried: list[Mapping[str, Any]] = []

    async def refuses_forgery(self, approval: Mapping[str, Any]) -> bool:
        self.tried.append(approval)
        if self.error is not None:
            raise self.error
        return self.refuses


class Engine:
    """The Engine object, once it is there."""

    def __init__(self, uid: str = "uid-e") -> None:
        self.engine_uid = uid
        self.policies: Mapping[str, Policy] = {}
        self.engine_object: Mapping[str, Any] = {"metadata": {"name": "default", "uid": uid, "generation": 2}}


async def said(desk: Desk, engine: Engine, looks: int = 1) -> tuple[list[bool], list[dict[str, Any]]]:
    sink = FakeSink()
    writer = StatusWriter("Engine", sink, durable=lambda: asyncio.sleep(0))
    report = EngineReport(engine, writer, owner="fairlead-engine-0", clock=FakeClock())
    guardrails = Guardrails(desk, report.guarded)  # type: ignore[arg-type]  # only one method is used
    running = asyncio.create_task(writer.run())
    found = [await guardrails.look() for _ in range(looks)]
    await asyncio.sleep(0.01)
    running.cancel()
    assert {status["owner"] for status in sink.of("default", "Engine")} <= {"fairlead-engine-0"}
    return found, [condition for status in sink.of("default", "Engine") for condition in status["conditions"]]


@pytest.mark.requirement("F40")
@pytest.mark.parametrize(
    ("refuses", "status", "reason"), [(True, "True", "Verified"), (False, "False", "NotInstalled")]
)
async def test_what_the_cluster_does_is_told(refuses: bool, status: str, reason: str) -> None:
    desk = Desk()
    desk.refuses = refuses
    found, (condition,) = await said(desk, Engine())
    assert found == [refuses]
    assert (condition["type"], condition["status"], condition["reason"]) == ("GuardrailsInstalled", status, reason)
    assert condition["observedGeneration"] == 2


@pytest.mark.requirement("F40")
async def test_nothing_is_told_that_was_not_seen() -> None:
    desk = Desk()
    desk.error = Unreachable(503, "no answer")
    assert await said(desk, Engine()) == ([False], [])
    assert await said(Desk(), Engine(uid="")) == ([False], [])


async def test_what_is_tried_is_an_approval_in_all_but_the_decision() -> None:
    desk = Desk()
    await said(desk, Engine())
    (tried,) = desk.tried
    assert Approval.model_validate(tried).spec.decisions is None
