"""Reachable says whether a server answers, and of an MCP server which functions the contract lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeResources, FakeSink

from fairlead.api.canonical import digest
from fairlead.api.model import Model
from fairlead.api.reasons import ReachableReason
from fairlead.api.tool import Tool
from fairlead.engine.reachable import Finding, Reachability, pinned_state, server_status
from fairlead.engine.status import StatusWriter
from fairlead.engine.tools import Discovery

META = {"name": "handbook", "namespace": "team", "uid": "u", "generation": 3}
TOOL = Tool.model_validate(
    {"metadata": META, "spec": {"mcp": {"url": "https://mcp.example.com/mcp"}, "functions": [{"name": "search"}]}}
)
MODEL = Model.model_validate(
    {"metadata": META, "spec": {"endpoint": {"api": "OpenAIChat", "url": "https://m.example.com/v1", "model": "m"}}}
)
SEARCH = {"name": "search", "inputSchema": {"type": "object"}}
REMOVE = {"name": "remove"}
DISCOVERY = Discovery("2026-07-28", (SEARCH, REMOVE))
NOW = "2026-01-01T00:00:00Z"
LATER = "2026-01-01T00:01:00Z"


def test_functions_outside_the_contract_are_shown_as_unlisted() -> None:
    found = Finding(True, ReachableReason.ANSWERED, discovery=DISCOVERY)
    status = server_status(TOOL, found, previous={}, now=NOW)
    assert status["protocolVersion"] == "2026-07-28"
    assert status["functions"] == [
        {"name": "remove", "contract": "Unlisted", "digest": digest(REMOVE)},
        {"name": "search", "contract": "Listed", "digest": digest(SEARCH)},
    ]
    for condition in status["conditions"]:
        status_ = "True" if condition["type"] == "Reachable" else "False"
        assert condition | {"observedGeneration": 3, "status": status_} == condition


def pinned(*functions: dict[str, Any]) -> Tool:
    spec = {"mcp": {"url": "https://mcp.example.com/mcp"}, "functions": list(functions)}
    return Tool.model_validate({"metadata": META, "spec": spec})


OLD = "sha256:" + "0" * 64
FITS = {"name": "search", "pin": digest(SEARCH)}


@pytest.mark.requirement("A39")
@pytest.mark.parametrize(
    ("functions", "discovery", "state"),
    [
        ([FITS], DISCOVERY, (True, "Pinned", "")),
        ([FITS, {"name": "remove"}], DISCOVERY, (False, "Unpinned", "without a pin: remove")),
        ([FITS | {"pin": OLD}], DISCOVERY, (False, "Drift", "the server defines search otherwise than it is pinned")),
        (
            [FITS, {"name": "gone", "pin": OLD}, {"name": "remove"}],
            DISCOVERY,
            (False, "Drift", "the server does not list gone any more"),
        ),
        (
            [FITS],
            Discovery("2026-07-28", (SEARCH, SEARCH)),
            (False, "Drift", "the server defines search more than once"),
        ),
        ([FITS], None, (None, "DefinitionUnknown", "the server does not say how its functions are defined")),
        ([{"name": "search"}], None, (False, "Unpinned", "without a pin: search")),
    ],
)
def test_pinned_says_whether_every_function_is_as_it_was_reviewed(
    functions: list[dict[str, Any]], discovery: Discovery | None, state: tuple[bool | None, str, str]
) -> None:
    assert pinned_state(pinned(*functions), discovery) == state


@pytest.mark.parametrize(("second", "since"), [(True, NOW), (False, LATER)])
def test_the_transition_time_moves_only_with_the_status(second: bool, since: str) -> None:
    first = server_status(MODEL, Finding(True, ReachableReason.ANSWERED), previous={}, now=NOW)
    found = Finding(second, ReachableReason.ANSWERED if second else ReachableReason.NO_ANSWER)
    again = server_status(MODEL, found, previous=first, now=LATER)
    assert again["conditions"][0]["lastTransitionTime"] == since


class Asked:
    """Answers of every Tool but one, which nobody can even ask."""

    async def discover(self, name: str, tool: Tool) -> Discovery:
        if name == "poison":
            raise UnicodeError("label empty or too long")
        return DISCOVERY


@pytest.mark.requirement("A34")
async def test_a_tool_that_cannot_be_asked_is_told_and_the_others_are_asked() -> None:
    resources, sink = FakeResources(), FakeSink()
    for name in ("poison", "handbook"):
        resources.tools[name] = TOOL.model_copy(
            update={"metadata": TOOL.metadata.model_copy(update={"name": name, "uid": name})}
        )

    async def at_once() -> None:
        pass

    callers: Any = Asked()
    statuses = StatusWriter("Tool", sink, durable=at_once)
    reachability = Reachability(
        resources, tools=callers, dialer=callers, tool_statuses=statuses, model_statuses=statuses, clock=lambda: 0
    )
    serving = asyncio.gather(statuses.run(), reachability.run())
    for name in ("poison", "handbook"):
        reachability.changed("Tool", name)
    async with asyncio.timeout(10):
        while len(sink.written) < 2:
            await asyncio.sleep(0)
    assert not serving.done()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    said = {name: {c["type"]: c["status"] for c in status["conditions"]} for _, name, status in sink.written}
    assert {name: conditions["Reachable"] for name, conditions in said.items()} == {
        "poison": "False",
        "handbook": "True",
    }
