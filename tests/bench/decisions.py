"""What a decision costs: stages 4 to 10 with 0 to 100 Policies, stage by stage, and a permission from the cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.bench import workloads
from tests.bench.figures import Repetition, Title, percentiles_ms

from fairlead.api.policy import Policy
from fairlead.api.tool import Tool
from fairlead.engine.authorizer import Answer, CachedAuthorizer
from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
from fairlead.flow.journal import Path, RunUid
from fairlead.flow.runstate import RunState
from fairlead.policy.decide import STAGES, decide
from fairlead.policy.decision import Authorization, Snapshot
from fairlead.policy.permission import Permission, function_permission
from fairlead.policy.rules import binding, scope_of

TIMES = 2000
POLICIES = (0, 1, 10, 100)
TITLES = {
    **{
        f"decision.{many}": Title(f"decision (stages 4 to 10) under {many} Policies of two rules", "ms")
        for many in POLICIES
    },
    **{f"decision.stage.{stage.__name__}": Title(f"of that under 10: {stage.__name__}", "ms") for stage in STAGES},
    "decision.cached": Title("permission from the cache", "ms"),
}


async def decisions() -> Repetition:
    """Measure; every decision is Allow, so that all stages are gone through."""
    found: Repetition = {f"decision.{many}": _timed(partial(decide, CALL, _snapshot(many))) for many in POLICIES}
    ten = _snapshot(10)
    stages = {f"decision.stage.{stage.__name__}": _timed(partial(stage, CALL, ten)) for stage in STAGES}
    return {**found, **stages, "decision.cached": await _cached()}


CALL = Call(
    CallId(Path("step"), 1, CallIndex()),
    CallKind.TOOL,
    "desk",
    "read",
    {"arguments": {"query": "a question"}},
)
_SCHEMA = {"type": "object", "properties": {"query": {"type": "string", "maxLength": 500}}, "required": ["query"]}
_TOOL = Tool.model_validate(
    {
        "metadata": {"name": "desk"},
        "spec": {
            "mcp": {"url": "https://desk.example/mcp"},
            "functions": [{"name": "read", "effect": "Read", "input": {"schema": _SCHEMA}}],
        },
    }
)


def _snapshot(many: int) -> Snapshot:
    policies = [
        Policy.model_validate(workloads.ruling(f"p{number}", tool="desk", argument="query")) for number in range(many)
    ]
    scope = scope_of(
        CALL,
        RunState(RunUid("u")),
        account="clerk",
        function=_TOOL.spec.functions[0],
        effect="Read",
        model=None,
        labels={},
    )
    return Snapshot(
        namespace="team",
        account="clerk",
        tool=_TOOL,
        authorization=Authorization("Allowed"),
        policies=binding(policies, {}),
        scope=scope,
    )


def _timed(once: Callable[[], Any]) -> dict[str, float]:
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - began)
    return dict(percentiles_ms(seconds))


async def _cached() -> dict[str, float]:
    async def review(account: str, permission: Permission) -> Answer:
        return Answer(True)

    authorizer, needed = CachedAuthorizer(review), function_permission("desk", "read")
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await authorizer.authorize("clerk", needed)
        seconds.append(time.perf_counter() - began)
    return dict(percentiles_ms(seconds[1:]))
