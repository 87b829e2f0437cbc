"""`NetworkIsolation`: what other NetworkPolicies open, and what our pods have found themselves."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, available, declared

from fairlead.controllers.network import isolation
from fairlead.controllers.plan import Said
from fairlead.controllers.settings import EngineImage
from fairlead.controllers.tool import plan

OURS = ("fairlead-engine", "fairlead-step", "fairlead-tool-tickets")
OPEN = [{}]


def deployment(*, guarded: bool = True) -> Object:
    server = {"image": "example.com/tickets@sha256:" + "0" * 64, "port": 8080}
    tool = declared("Tool", "tickets", changes={"spec.mcp": {"server": server}, "spec.credential": None})
    guard = EngineImage("example.com/fairlead:1") if guarded else None
    made = plan(tool, guard=guard, deployment=None, pods=[])
    (found,) = [obj for rt, obj in made.apply if rt.kind == "Deployment"]
    return found


def said(*policies: Object, deployments: list[Object] | None = None, pods: list[Object] | None = None) -> Said:
    return isolation(policies, deployments if deployments is not None else [deployment()], pods or [], ours=OURS)


def policy(name: str = "other", selector: dict[str, Any] | None = None, **ways: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"podSelector": selector or {}, **ways}}


def expression(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": values} if values else {})}]}


WIDE: dict[str, tuple[Object, str]] = {
    "everything": (policy(egress=OPEN), "lets out pods of steps, Tool tickets"),
    "the way in": (policy(ingress=OPEN), "lets into pods of steps, Tool tickets"),
    "both ways": (policy(ingress=OPEN, egress=OPEN), "lets into and lets out pods of steps"),
    "tools": (policy(selector={"matchLabels": {"fairlead.dev/component": "tool"}}, egress=OPEN), "out pods of Tool"),
    "steps": (policy(selector=expression("fairlead.dev/component", "In", "step"), egress=OPEN), "out pods of steps"),
    "all but a shop's": (policy(selector=expression("app", "NotIn", "shop"), egress=OPEN), "out pods of steps, Tool"),
    "what is not the engine": (
        policy(selector=expression("fairlead.dev/component", "NotIn", "engine"), egress=OPEN),
        "lets out pods of steps, Tool tickets",
    ),
    "what has our label": (policy(selector=expression("fairlead.dev/name", "Exists"), egress=OPEN), "pods of Tool"),
    "one that looks like ours": (policy("fairlead-tool-other", egress=OPEN), "NetworkPolicy fairlead-tool-other"),
}
NARROW: dict[str, Object] = {
    "nothing is opened": policy(egress=[], ingress=[]),
    "pods of others": policy(selector={"matchLabels": {"app": "shop"}}, egress=OPEN),
    "what is not ours": policy(selector=expression("fairlead.dev/component", "DoesNotExist"), egress=OPEN),
    "ours": policy("fairlead-engine", egress=OPEN),
}


@pytest.mark.requirement("A58")
@pytest.mark.parametrize(("other", "words"), WIDE.values(), ids=WIDE)
def test_a_policy_of_somebody_else_that_opens_our_pods_is_named(other: Object, words: str) -> None:
    found = said(policy("fairlead-engine", egress=OPEN), other)
    assert (found.type, found.value, found.reason) == ("NetworkIsolation", False, "WidenedByPolicy")
    assert words in found.message
    assert other["metadata"]["name"] in found.message


@pytest.mark.parametrize("other", NARROW.values(), ids=NARROW)
def test_policies_that_open_nothing_of_ours_are_nobodys_business(other: Object) -> None:
    assert said(other).reason == "Untried"


def test_a_server_that_started_behind_its_guard_has_seen_that_it_is_locked_in() -> None:
    found = said(deployments=[available(deployment())])
    assert (found.value, found.reason) == (True, "Verified")
    assert "Tool tickets" in found.message
    assert said(deployments=[available(deployment(guarded=False))]).reason == "Untried"
    assert said(deployments=[]).value is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"name": "isolation", "ready": False, "lastState": {"terminated": {"exitCode": 1}}}, "NotEnforced"),
        ({"name": "isolation", "ready": False, "state": {"terminated": {"exitCode": 1}}}, "NotEnforced"),
        ({"name": "isolation", "ready": False, "state": {"running": {}}}, "Untried"),
        ({"name": "isolation", "ready": True, "state": {"terminated": {"exitCode": 0}}}, "Untried"),
    ],
)
def test_a_pod_that_finds_its_way_out_open_says_that_nothing_is_enforced(status: Any, reason: str) -> None:
    pod = {"metadata": {"name": "fairlead-tool-tickets-x"}, "status": {"initContainerStatuses": [status]}}
    found = said(pods=[pod])
    assert found.reason == reason
    assert ("fairlead-tool-tickets-x" in found.message) == (reason == "NotEnforced")
