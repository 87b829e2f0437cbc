"""Reachable says whether a server answers, and of an MCP server which functions the contract lacks."""

from __future__ import annotations

import pytest

from fairlead.api.model import Model
from fairlead.api.reasons import ReachableReason
from fairlead.api.tool import Tool
from fairlead.engine.reachable import Finding, server_status
from fairlead.engine.tools import Discovery

META = {"name": "handbook", "namespace": "team", "uid": "u", "generation": 3}
TOOL = Tool.model_validate(
    {"metadata": META, "spec": {"mcp": {"url": "https://mcp.example.com/mcp"}, "functions": [{"name": "search"}]}}
)
MODEL = Model.model_validate(
    {"metadata": META, "spec": {"endpoint": {"api": "OpenAIChat", "url": "https://m.example.com/v1", "model": "m"}}}
)
NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"


def test_functions_outside_the_contract_are_shown_as_unlisted() -> None:
    found = Finding(True, ReachableReason.ANSWERED, discovery=Discovery("2026-07-28", ("search", "remove")))
    status = server_status(TOOL, found, previous={}, now=NOW)
    assert status["protocolVersion"] == "2026-07-28"
    assert status["functions"] == [
        {"name": "remove", "contract": "Unlisted"},
        {"name": "search", "contract": "Listed"},
    ]
    assert status["conditions"][0] | {"observedGeneration": 3, "status": "True"} == status["conditions"][0]


@pytest.mark.parametrize(("second", "since"), [(True, NOW), (False, LATER)])
def test_the_transition_time_moves_only_with_the_status(second: bool, since: str) -> None:
    first = server_status(MODEL, Finding(True, ReachableReason.ANSWERED), previous={}, now=NOW)
    found = Finding(second, ReachableReason.ANSWERED if second else ReachableReason.NO_ANSWER)
    again = server_status(MODEL, found, previous=first, now=LATER)
    assert again["conditions"][0]["lastTransitionTime"] == since
