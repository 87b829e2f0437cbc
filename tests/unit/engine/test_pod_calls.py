"""Step pods before the gate: one is made once, whatever the API server does, and believed only if it is ours."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.engine.gateworld import World
from tests.unit.engine.podworld import IMAGE, PodWorld, asked, exited, grant, status

from fairlead.api.engine import EngineSpec
from fairlead.api.policy import Policy
from fairlead.api.workflow import Workflow
from fairlead.engine.authorized import Authorizations
from fairlead.engine.pods.build import pod_name
from fairlead.errors import KubeError, Unreachable
from fairlead.policy.decision import Authorization


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.engine.pods.runner._FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr("fairlead.engine.pods.runner._LONGEST_PAUSE_SECONDS", 0.001)


async def begun(world: PodWorld) -> asyncio.Task[None]:
    """Begin a container whose pod does not end by itself; return the call once its pod is on record."""
    world.cluster.looks = 10**9
    running = asyncio.create_task(world.make(asked()))
    while "PodStarted" not in world.log.kinds():
        await asyncio.sleep(0.001)
    return running


async def test_a_container_runs_once_and_what_it_left_is_the_result() -> None:
    world = PodWorld()
    await world.make(asked())
    assert world.log.kinds() == ["CallIntent", "PodStarted", "CallOutcome"]
    assert world.outcome()["result"] == {"output": {"n": 7}, "logs": "hello\nbye\n"}
    await asyncio.sleep(0.01)
    assert world.cluster.deleted == [pod_name(world.log.uid, asked())]


async def test_no_file_is_null_and_no_json_is_told() -> None:
    world = PodWorld()
    world.cluster.output = None
    await world.make(asked())
    assert world.outcome()["result"]["output"] is None
    world = PodWorld()
    world.cluster.output = b"{"
    await world.make(asked())
    assert world.outcome()["error"]["reason"] == "BadOutput"


@pytest.mark.requirement("F06")
async def test_an_output_of_which_nobody_told_is_lost_and_not_none() -> None:
    world = PodWorld()
    world.cluster.silent = True
    await world.make(asked())
    assert (world.outcome()["error"]["class"], world.outcome()["error"]["reason"]) == ("Unavailable", "OutputLost")
    assert world.outcome()["result"] == {"logs": "hello\nbye\n"}


async def test_the_log_of_a_failed_container_is_kept() -> None:
    world = PodWorld()
    world.cluster.ends = status(exited(3), phase="Failed")["status"]
    await world.make(asked())
    assert world.outcome()["error"]["reason"] == "ExitCode"
    assert world.outcome()["result"] == {"logs": "hello\nbye\n"}


DENIED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "not granted": (IMAGE, {"p": grant("example.com/other@sha256:*")}, "Forbidden", "no Policy grants the image"),
    "granted to another account": (IMAGE, {"p": grant(IMAGE, account="else")}, "Forbidden", "no Policy grants"),
    "granted by a Policy that is not Ready": (
        IMAGE,
        {"p": grant(IMAGE, ready="False")},
        "Forbidden",
        "no Policy grants",
    ),
    "a longer name": (
        "example.com/python2@sha256:" + "0" * 64,
        {"p": grant("example.com/python@sha256:*")},
        "Forbidden",
        "",
    ),
    "a tag for a digest": ("example.com/python:1", {"p": grant("example.com/python@sha256:*")}, "Invalid", "no digest"),
    "a tag": ("example.com/python:1", {"p": grant("example.com/python:1")}, "Invalid", "imageTags: Allowed"),
    "no Policy": (IMAGE, {}, "Forbidden", "no Policy grants"),
}


@pytest.mark.parametrize(("image", "policies", "reason", "words"), DENIED.values(), ids=DENIED)
async def test_an_image_that_is_not_granted_never_runs(
    image: str, policies: dict[str, Any], reason: str, words: str
) -> None:
    world = PodWorld()
    world.policies = policies
    await world.make(asked(image))
    assert world.cluster.made == 0
    assert world.outcome()["reason"] == reason and words in world.outcome()["message"]


async def test_a_workflow_is_authorized_only_with_its_images() -> None:
    world = PodWorld()
    container = {"image": IMAGE, "command": ["x"]}
    spec = {"serviceAccountName": "triage", "steps": [{"name": "a", "container": container}]}
    world.workflows = {"w": Workflow.model_validate({"metadata": {"name": "w"}, "spec": spec})}
    fakes: Any = world
    found = Authorizations(fakes, fakes, waited_for=lambda name: False, on_verdict=lambda name: None)
    await found._check("w")
    assert found.of("w") == Authorization("Allowed", message="triage has all 0 permissions")
    world.policies = {}
    await found._check("w")
    verdict = found.of("w")
    assert verdict is not None and verdict.verdict == "Denied"
    assert verdict.message == f"no Policy grants the image {IMAGE} to triage (spec.grants.images)"


async def test_a_tag_runs_where_the_engine_says_so_and_a_policy_names_it() -> None:
    world = PodWorld()
    world.engine = EngineSpec.model_validate({"security": {"imageTags": "Allowed"}})
    world.policies = {"p": grant("example.com/python:1")}
    await world.make(asked("example.com/python:1"))
    assert world.cluster.made == 1


async def test_a_rule_may_forbid_an_image() -> None:
    world = PodWorld()
    rules = {"calls": [{"name": "no", "when": "call.kind == 'container' && call.image.startsWith('example.com/')"}]}
    forbids = Policy.model_validate({"metadata": {"name": "r"}, "spec": {"rules": rules}})
    world.policies = {"p": grant(IMAGE), "r": forbids}
    await world.make(asked())
    assert world.cluster.made == 0 and world.outcome()["reason"] == "PolicyDenied"


@pytest.mark.requirement("A58")
async def test_no_container_starts_where_the_network_does_not_lock_it_in() -> None:
    world = PodWorld()
    world.isolation_broken = "WidenedByPolicy: NetworkPolicy open lets out pods of steps"
    await world.make(asked())
    assert world.log.kinds() == ["CallDenied"]
    denied = world.outcome()
    assert denied["reason"] == "NotIsolated"
    assert denied["message"] == "no container starts: WidenedByPolicy: NetworkPolicy open lets out pods of steps"
    assert world.cluster.pods == {}
    world = PodWorld()
    world.isolation_broken = "NotEnforced: nothing is"
    world.engine = EngineSpec.model_validate({"security": {"requireNetworkIsolation": "NotRequired"}})
    await world.make(asked())
    assert world.log.kinds() == ["CallIntent", "PodStarted", "CallOutcome"]


async def test_without_a_cluster_no_container_runs() -> None:
    world = World()
    world.policies = {"p": grant(IMAGE)}
    await world.make(asked())
    assert "on a cluster only" in world.log.last()["message"]


def killed_after(world: PodWorld, *kinds: str) -> None:
    """Take back what the journal has beyond these kinds, as a crash does."""
    from fairlead.flow.state import apply, new_state

    kept = world.log.entries[: 2 + len(kinds)]
    assert [entry.kind.value for entry in kept[2:]] == [*kinds]
    world.log.entries, world.log.state = kept, new_state()
    for entry in kept:
        world.log.state = apply(world.log.state, entry)


@pytest.mark.requirement("G2")
@pytest.mark.parametrize("kinds", [("CallIntent",), ("CallIntent", "PodStarted")], ids=["before", "after"])
async def test_after_a_crash_the_same_pod_goes_on(kinds: tuple[str, ...]) -> None:
    world = PodWorld()
    running = await begun(world)
    world.log.draining = True  # type: ignore[attr-defined]
    await running
    assert world.log.kinds() == ["CallIntent", "PodStarted"], "the pod is left to the next engine"
    killed_after(world, *kinds)
    world.log.draining = False  # type: ignore[attr-defined]
    world.cluster.looks = 1
    await world.make(asked())
    assert world.cluster.made == 1
    assert world.outcome()["result"]["output"] == {"n": 7}


@pytest.mark.requirement("A10")
async def test_a_pod_that_somebody_made_is_never_believed() -> None:
    world = PodWorld()
    name = pod_name(world.log.uid, asked())
    forged = {"metadata": {"name": name, "uid": "forged", "ownerReferences": [{"uid": world.log.uid}]}, "looks": 0}
    world.cluster.pods[name] = forged | {"status": status(exited(0), phase="Succeeded")["status"]}
    await world.make(asked())
    assert world.outcome()["error"]["reason"] == "ChildNameConflict"
    assert "result" not in world.outcome() and world.cluster.deleted == []


@pytest.mark.requirement("A10")
async def test_a_pod_that_was_replaced_meanwhile_is_not_believed() -> None:
    world = PodWorld()
    running = await begun(world)
    (pod,) = world.cluster.pods.values()
    replaced = pod | {"metadata": pod["metadata"] | {"uid": "another"}}
    world.cluster.pods[pod["metadata"]["name"]] = replaced | {"status": status(exited(0), phase="Succeeded")["status"]}
    await running
    assert world.outcome()["error"]["reason"] == "PodLost"


async def test_a_pod_that_is_gone_is_lost() -> None:
    world = PodWorld()
    running = await begun(world)
    world.cluster.pods.clear()
    await running
    assert (world.outcome()["error"]["class"], world.outcome()["error"]["reason"]) == ("Unavailable", "PodLost")


@pytest.mark.requirement("F10")
async def test_nobody_waits_for_a_pod_on_a_lost_node_nor_for_its_log() -> None:
    world = PodWorld()
    running = await begun(world)
    (pod,) = world.cluster.pods.values()
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    await running
    assert (world.outcome()["error"]["class"], world.outcome()["error"]["reason"]) == ("Unavailable", "NodeLost")
    assert "result" not in world.outcome(), "its log is where it was"
    await asyncio.sleep(0.01)
    assert world.cluster.deleted == [pod["metadata"]["name"]]


async def test_an_api_server_that_is_away_costs_nothing_but_time() -> None:
    world = PodWorld()
    world.cluster.away = 5
    await world.make(asked())
    assert world.outcome()["status"] == "Succeeded"


@pytest.mark.requirement("F15")
async def test_a_pod_whose_making_nobody_heard_of_is_found() -> None:
    world = PodWorld()
    world.cluster.lost = 1
    await world.make(asked())
    assert (world.outcome()["status"], world.cluster.made) == ("Succeeded", 1)
    assert world.log.kinds() == ["CallIntent", "PodStarted", "CallOutcome"]


@pytest.mark.requirement("F15")
async def test_a_pod_is_found_again_when_the_api_server_comes_back() -> None:
    world = PodWorld()
    first = await begun(world)
    world.log.draining = True  # type: ignore[attr-defined]
    await first
    world.log.draining = False  # type: ignore[attr-defined]
    world.cluster.looks, world.cluster.away = 0, 1
    await world.make(asked())
    assert (world.outcome()["status"], world.cluster.made) == ("Succeeded", 1)


@pytest.mark.requirement("F15")
async def test_a_no_of_an_api_server_that_has_just_started_is_asked_again() -> None:
    world = PodWorld()
    world.cluster.refuse, world.cluster.starting = KubeError(403, "pods is forbidden: no RBAC policy matched"), True
    await world.make(asked())
    assert world.outcome()["status"] == "Succeeded"


async def test_an_engine_that_ends_leaves_the_making_to_the_next() -> None:
    world = PodWorld()
    world.cluster.refuse = Unreachable(0, "away")
    running = asyncio.create_task(world.make(asked()))
    while "CallIntent" not in world.log.kinds():
        await asyncio.sleep(0.001)
    world.log.draining = True  # type: ignore[attr-defined]
    await running
    assert world.log.kinds() == ["CallIntent"]


async def test_a_cancelled_container_is_deleted() -> None:
    world = PodWorld()
    running = await begun(world)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.cluster.deleted == [pod_name(world.log.uid, asked())]
    assert world.outcome()["error"]["class"] == "Cancelled"


REFUSALS = {
    "quota": (KubeError(403, "pods x is forbidden: exceeded quota: q"), ("Unavailable", "QuotaExceeded")),
    "pod security": (KubeError(403, 'violates PodSecurity "restricted:latest"'), ("Invalid", "PodSecurity")),
    "no such account": (KubeError(403, "error looking up service account"), ("Invalid", "PodRefused")),
    "away": (Unreachable(0, "away"), ("Unavailable", "PodRefused")),
}


@pytest.mark.parametrize(("error", "expected"), REFUSALS.values(), ids=REFUSALS)
async def test_what_the_api_server_refuses_is_told(error: KubeError, expected: tuple[str, str]) -> None:
    world = PodWorld()
    world.cluster.refuse = error
    await world.make(replace(asked(), deadline_ms=world.clock() + 50))
    found = world.outcome()["error"]
    assert (found["class"], found["reason"]) == expected
