from __future__ import annotations

import pytest
from tests.unit.controllers.declared import Object, declared, ready

from fairlead.controllers.affected import affected, all_keys
from fairlead.controllers.observed import Observed
from fairlead.controllers.queue import Key
from fairlead.kube.types import (
    DEPLOYMENTS,
    ENGINES,
    MODELS,
    NETWORK_POLICIES,
    POLICIES,
    STATEFUL_SETS,
    TOOLS,
    WORKFLOWS,
    ResourceType,
)

WORKFLOW = Key("workflows", "team", "triage")
ENGINE = Key("engines", "team", "default")


@pytest.fixture
def observed() -> Observed:
    seen = Observed()
    seen.put(WORKFLOWS, declared("Workflow"))
    seen.put(WORKFLOWS, declared("Workflow", "elsewhere", namespace="other"))
    return seen


def edited(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "generation": 2}}


def child(component: str, name: str) -> Object:
    labels = {"fairlead.dev/component": component, "fairlead.dev/name": name}
    return {"metadata": {"name": "x", "namespace": "team", "labels": labels}}


@pytest.mark.parametrize(
    ("rt", "obj", "expected"),
    [
        (WORKFLOWS, declared("Workflow"), {WORKFLOW, ENGINE}),
        (TOOLS, declared("Tool"), {Key("tools", "team", "tickets"), ENGINE, WORKFLOW}),
        (MODELS, declared("Model"), {Key("models", "team", "small"), ENGINE, WORKFLOW}),
        (POLICIES, declared("Policy"), {Key("policies", "team", "triage"), ENGINE}),
        (ENGINES, declared("Engine"), {ENGINE, WORKFLOW}),
    ],
    ids=lambda value: value.plural if isinstance(value, ResourceType) else "",
)
def test_a_declaration_concerns_itself_the_engine_and_who_refers_to_it(
    rt: ResourceType, obj: Object, expected: set[Key], observed: Observed
) -> None:
    assert affected(rt, None, obj, observed) == expected
    assert affected(rt, obj, edited(obj), observed) == expected
    assert affected(rt, obj, None, observed) == expected
    assert affected(rt, obj, obj, observed) == set()


def test_servers_are_looked_at_again_when_the_engine_changes_how_they_start(observed: Observed) -> None:
    observed.put(TOOLS, declared("Tool"))
    observed.put(MODELS, declared("Model"))
    engine = declared("Engine")
    servers = {Key("tools", "team", "tickets"), Key("models", "team", "small")}
    assert affected(ENGINES, engine, edited(engine), observed) >= servers
    assert not affected(ENGINES, engine, ready(engine), observed) & servers


def test_a_status_that_somebody_writes_concerns_nobody(observed: Observed) -> None:
    tool = declared("Tool")
    assert affected(TOOLS, tool, ready(tool), observed) == set()


def test_the_service_is_looked_at_again_when_another_replica_serves(observed: Observed) -> None:
    before, after = ({**declared("Engine"), "status": {"owner": f"fairlead-engine-{number}"}} for number in (0, 1))
    assert affected(ENGINES, before, after, observed) == {ENGINE}
    assert affected(ENGINES, after, after, observed) == set()


def test_workflows_are_looked_at_again_when_the_engine_becomes_ready(observed: Observed) -> None:
    engine = declared("Engine")
    assert affected(ENGINES, engine, ready(engine), observed) == {WORKFLOW}


@pytest.mark.parametrize(
    ("rt", "component", "name", "key"),
    [
        (DEPLOYMENTS, "tool", "tickets", Key("tools", "team", "tickets")),
        (DEPLOYMENTS, "model", "small", Key("models", "team", "small")),
        (STATEFUL_SETS, "engine", "default", ENGINE),
        (DEPLOYMENTS, "somebody", "else", None),
    ],
)
def test_a_child_concerns_what_it_was_made_for(
    rt: ResourceType, component: str, name: str, key: Key | None, observed: Observed
) -> None:
    for before, after in ((None, child(component, name)), (child(component, name), None)):
        assert affected(rt, before, after, observed) == ({key} if key else set())


def test_what_tells_of_the_network_concerns_the_engine_that_there_is(observed: Observed) -> None:
    foreign = {"metadata": {"name": "open", "namespace": "team"}, "spec": {"podSelector": {}, "egress": [{}]}}
    assert affected(NETWORK_POLICIES, None, foreign, observed) == set()
    observed.put(ENGINES, declared("Engine"))
    assert affected(NETWORK_POLICIES, None, foreign, observed) == {ENGINE}
    tool = Key("tools", "team", "tickets")
    assert affected(DEPLOYMENTS, None, child("tool", "tickets"), observed) == {tool, ENGINE}


def test_a_child_without_labels_concerns_nobody(observed: Observed) -> None:
    assert affected(DEPLOYMENTS, None, {"metadata": {"name": "x", "namespace": "team"}}, observed) == set()


def test_every_namespace_with_a_fairlead_object_has_its_engine_looked_at(observed: Observed) -> None:
    assert all_keys(observed) == {
        WORKFLOW,
        ENGINE,
        Key("workflows", "other", "elsewhere"),
        Key("engines", "other", "default"),
    }
