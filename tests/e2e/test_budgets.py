"""Budgets in tokens, money and runs on a real cluster: held before the call, told in the status of run and Policy."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from tests.e2e.installation import Fairlead, create_run, finished, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import (
    Manifest,
    asked,
    becomes,
    engine,
    manifest,
    outcome,
    play,
    policy,
    scene,
    scripted_model,
    workflow,
)

pytestmark = pytest.mark.cluster

PRICE = {"inputUSDPerMTok": "1000", "outputUSDPerMTok": "2000"}
SCRIPT: list[Manifest] = [{"content": "hello", "usage": {"promptTokens": 40, "completionTokens": 10}}]
SAYS: dict[str, Any] = {"name": "say", "generate": {"model": "scripted", "prompt": "Hello"}}


def window(**budget: Any) -> Manifest:
    return {"rules": {"budgets": {"window": {"periodSeconds": 31_536_000, **budget}}}}


@pytest.mark.requirement("A43")
def test_budgets_hold_and_are_shown(administrator: Kubectl, chart: Fairlead) -> None:
    model = scripted_model()
    model["spec"] |= {"price": PRICE, "limits": {"maxOutputTokens": 100}}
    many = SAYS | {"forEach": {"items": [*range(50)], "maxParallel": 50, "onItemFailure": "Continue"}}
    objects = (
        engine(),
        model,
        policy("worker"),
        manifest("Policy", "shared", window(runs=3)),
        workflow("says", SAYS),
        workflow("poor", SAYS, limits={"costUSD": "0.1"}),
        workflow("many", many, limits={"costUSD": "3"}),
    )
    with scene(administrator, *objects) as team:
        becomes(team, "model", "scripted", "Reachable", timeout_seconds=240)
        play(team, *SCRIPT)
        for name in ("says", "poor", "many"):
            becomes(team, "workflow", name, "Authorized")
        run = finished(team, create_run(team, "says"))
        assert outcome(run)[0] == "Completed"
        assert run["status"]["usage"]["costUSD"] == "0.06", "40 in at 0.001, 10 out at 0.002"
        reason, message = outcome(finished(team, create_run(team, "poor")))
        assert reason == "BudgetExceeded"
        assert "limits.costUSD: 0 of 0.1 used; this call can need 0." in message
        run = finished(team, create_run(team, "many"))
        usage = run["status"]["usage"]
        assert Decimal(usage["costUSD"]) <= 3
        posts = [request for request in asked(team) if request["method"] == "POST"]
        assert len(posts) - 1 == usage["modelCalls"]
        assert 30 <= usage["modelCalls"] < 50, "as many as fit, and no more"
        reason, message = outcome(finished(team, create_run(team, "says")))
        assert reason == "BudgetExceeded"
        assert "Policy shared, rule budgets.window.runs: 3 of 3 runs have begun until" in message

        def shown() -> bool:
            found = team.get("policy", "shared")["status"].get("window", {})
            return found.get("runs") == 3 and Decimal(found["costUSD"]) == Decimal("0.06") + Decimal(usage["costUSD"])

        until("the Policy says what was used", shown)
