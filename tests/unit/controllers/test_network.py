"""`NetworkIsolation`: what other NetworkPolicies open, and what our pods have found themselves."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, available, declared

from fairlead.controllers.engine_objects import networks
from fairlead.controllers.network import isolation
from fairlead.controllers.plan import Said
from fairlead.controllers.server import network_of
from fairlead.controllers.settings import EngineImage
from fairlead.controllers.tool import plan

OPEN = [{}]


def made(kind: str, *, guarded: bool = True) -> Object:
    """Return what the operator makes for a Tool with a server."""
    server = {"image": "example.com/tickets@sha256:" + "0" * 64, "port": 8080}
    tool = declared("Tool", "tickets", changes={"spec.mcp": {"server": server}, "spec.credential": None})
    guard = EngineImage("example.com/fairlead:1") if guarded else None
    (found,) = [obj for rt, obj in plan(tool, guard=guard, deployment=None, pods=[]).apply if rt.kind == kind]
    return found


def deployment(*, guarded: bool = True) -> Object:
    return made("Deployment", guarded=guarded)


OURS = networks() | {"fairlead-tool-tickets": network_of(deployment())}


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
    "the engine's": policy("fairlead-engine") | {"spec": OURS["fairlead-engine"]},
    "that of steps": policy("fairlead-step") | {"spec": OURS["fairlead-step"]},
    "that of a server": made("NetworkPolicy"),
}
CHANGED: dict[str, Object] = {
    "a way out of steps": policy("fairlead-step") | {"spec": OURS["fairlead-step"] | {"egress": OPEN}},
    "a way into steps": policy("fairlead-step") | {"spec": OURS["fairlead-step"] | {"ingress": OPEN}},
    "another way to the engine": policy("fairlead-step-calls")
    | {"spec": OURS["fairlead-step-calls"] | {"egress": OPEN}},
    "a way out of a server": policy("fairlead-tool-tickets")
    | {"spec": made("NetworkPolicy")["spec"] | {"egress": OPEN}},
    "a way into a server": policy("fairlead-tool-tickets")
    | {"spec": made("NetworkPolicy")["spec"] | {"ingress": OPEN}},
    "the engine's rules for everything": policy("fairlead-engine")
    | {"spec": OURS["fairlead-engine"] | {"podSelector": {}}},
    "one direction": policy("fairlead-step") | {"spec": OURS["fairlead-step"] | {"policyTypes": ["Ingress"]}},
}


@pytest.mark.requirement("A58")
@pytest.mark.parametrize(("other", "words"), WIDE.values(), ids=WIDE)
def test_a_policy_of_somebody_else_that_opens_our_pods_is_named(other: Object, words: str) -> None:
    found = said(NARROW["the engine's"], other)
    assert (found.type, found.value, found.reason) == ("NetworkIsolation", False, "WidenedByPolicy")
    assert words in found.message
    assert other["metadata"]["name"] in found.message


@pytest.mark.requirement("A58")
@pytest.mark.parametrize("ours", CHANGED.values(), ids=CHANGED)
def test_a_policy_of_ours_that_somebody_changed_is_named(ours: Object) -> None:
    found = said(ours)
    assert (found.value, found.reason) == (False, "WidenedByPolicy")
    assert found.message == f"NetworkPolicy {ours['metadata']['name']} is not as Fairlead made it"


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
