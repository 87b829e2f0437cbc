"""Reachable says whether a server answers, and of an MCP server which functions the contract lacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.engine.fakes import FakeResources, FakeSink
from yarl import URL

from fairlead.api.canonical import digest
from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.reasons import ReachableReason
from fairlead.api.tool import Tool
from fairlead.engine.dialer import DialError, Reached
from fairlead.engine.reachable import Finding, Reachability, pinned_state, server_status
from fairlead.engine.status import StatusWriter
from fairlead.engine.tools import Discovery, ToolCaller
from fairlead.policy.rules import unreadable

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


async def asking(resources: FakeResources, sink: FakeSink, tools: Any, dialer: Any, *servers: tuple[str, str]) -> None:
    """Ask these servers, until a status of each is written."""

    async def at_once() -> None:
        pass

    tool_statuses, model_statuses = (StatusWriter(kind, sink, durable=at_once) for kind in ("Tool", "Model"))
    reachability = Reachability(
        resources,
        tools=tools,
        dialer=dialer,
        tool_statuses=tool_statuses,
        model_statuses=model_statuses,
        clock=lambda: 0,
    )
    serving = asyncio.gather(tool_statuses.run(), model_statuses.run(), reachability.run())
    for kind, name in servers:
        reachability.changed(kind, name)
    async with asyncio.timeout(10):
        while len(sink.written) < len(servers):
            await asyncio.sleep(0)
    assert not serving.done()
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


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

    callers: Any = Asked()
    await asking(resources, sink, callers, callers, ("Tool", "poison"), ("Tool", "handbook"))
    said = {name: {c["type"]: c["status"] for c in status["conditions"]} for _, name, status in sink.written}
    assert {name: conditions["Reachable"] for name, conditions in said.items()} == {
        "poison": "False",
        "handbook": "True",
    }


class Network:
    """A dialer that reaches nobody and knows whom it was to reach."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def exchange(self, method: str, url: URL, **_: Any) -> Any:
        self.asked.append(url.host)
        raise DialError("no network", reached=Reached.NOTHING)


def closing(name: str, hosts: list[str], **spec: Any) -> Policy:
    rules = {"rules": {"egress": {"hosts": hosts}}}
    return Policy.model_validate({"metadata": {"name": name}, "spec": rules | spec})


LATER_VERSION = unreadable({"metadata": {"name": "p"}, "spec": {"rules": {"later": 1}}})
SOME = {"workflows": {"matchLabels": {"tier": "prod"}}}
HOSTS = ["mcp.example.com:443", "m.example.com:443"]
RULES: dict[str, tuple[Policy | None, str]] = {
    "no host": (closing("p", []), "Policy p, rule egress.hosts"),
    "of all namespaces": (closing("ClusterPolicy/closed", ["other.example.com:443"]), "ClusterPolicy closed, rule"),
    "rules that nobody can read": (LATER_VERSION, "Policy p, rule egress.hosts"),
    "this host": (closing("p", HOSTS), ""),
    "in Audit mode": (closing("p", [], mode="Audit"), ""),
    "for some Workflows": (closing("p", [], appliesTo=SOME), ""),
    "nobody knows": (None, "the operator has not said yet which ClusterPolicies"),
}


@pytest.mark.requirement("A27")
@pytest.mark.parametrize(("kind", "target"), [("Tool", TOOL), ("Model", MODEL)])
@pytest.mark.parametrize(("policy", "said"), RULES.values(), ids=RULES)
async def test_a_server_that_rules_keep_from_every_run_is_not_asked(
    kind: str, target: Any, policy: Policy | None, said: str
) -> None:
    resources, sink, network = FakeResources(), FakeSink(), Network()
    (resources.tools if kind == "Tool" else resources.models)["handbook"] = target
    resources.policies = {policy.metadata.name: policy} if policy is not None else {}
    resources.policies_known = policy is not None
    dialer: Any = network
    await asking(resources, sink, ToolCaller(dialer, resources), dialer, (kind, "handbook"))
    (condition,) = [one for one in sink.of("handbook", kind)[-1]["conditions"] if one["type"] == "Reachable"]
    assert (condition["status"], condition["reason"]) == ("False", "EgressDenied" if said else "NoAnswer")
    assert said in condition["message"]
    assert network.asked == ([] if said else ["handbook.example"])
