"""ClusterPolicies reach the Engines that they bind, whatever comes first, and go when they do not any more."""

from __future__ import annotations

import pytest
from tests.unit.controllers.declared import Object, declared, namespace
from tests.unit.controllers.test_reconcile import Operator

from fairlead.controllers.affected import affected
from fairlead.controllers.observed import Observed
from fairlead.controllers.queue import Key
from fairlead.kube.types import CLUSTER_POLICIES, ENGINES, NAMESPACES, WORKFLOWS

RULES = {"calls": [{"name": "no", "when": "true"}]}


def policy(name: str = "base", **spec: object) -> Object:
    head = {"name": name, "uid": f"uid-of-{name}", "generation": 1, "resourceVersion": "1"}
    return {"metadata": head, "spec": {"rules": RULES, **spec}}


@pytest.fixture
def operator() -> Operator:
    return Operator()


def copied(operator: Operator) -> list[str] | None:
    engine = operator.cluster.find(ENGINES, "default")
    found = (engine or {}).get("status", {}).get("clusterPolicies")
    return None if found is None else [copy["name"] for copy in found]


async def test_an_engine_says_that_nothing_binds_it(operator: Operator) -> None:
    operator.declare(WORKFLOWS, declared("Workflow"))
    await operator.settle()
    assert copied(operator) == []


async def test_what_binds_a_namespace_stands_in_the_status_of_its_engine(operator: Operator) -> None:
    operator.declare(CLUSTER_POLICIES, policy())
    operator.declare(CLUSTER_POLICIES, policy("prod", namespaceSelector={"matchLabels": {"tier": "prod"}}))
    operator.declare(WORKFLOWS, declared("Workflow"))
    await operator.settle()
    assert copied(operator) == ["base"]
    standing = operator.cluster.find(CLUSTER_POLICIES, "base", "")
    assert standing is not None
    assert operator.observed.get(CLUSTER_POLICIES, "", "base") is not None
    labelled = namespace(tier="prod")
    labelled["metadata"]["resourceVersion"] = "2"
    operator.declare(NAMESPACES, labelled)
    await operator.settle()
    assert copied(operator) == ["base", "prod"]
    prod = operator.cluster.find(CLUSTER_POLICIES, "prod", "")
    assert prod is not None and prod["status"]["namespaces"] == 1
    operator.observed.drop(CLUSTER_POLICIES, "", "base")
    await operator.settle()
    assert copied(operator) == ["prod"]


async def test_a_namespace_that_no_watch_has_told_of_is_asked_for(operator: Operator) -> None:
    operator.cluster.has(NAMESPACES, namespace(tier="prod"))
    operator.declare(CLUSTER_POLICIES, policy("prod", namespaceSelector={"matchLabels": {"tier": "prod"}}))
    operator.declare(WORKFLOWS, declared("Workflow"))
    await operator.settle()
    assert copied(operator) == ["prod"], "to take it for one without labels would let it out"


async def test_an_engine_that_was_deleted_comes_back_with_them(operator: Operator) -> None:
    operator.declare(CLUSTER_POLICIES, policy())
    operator.declare(WORKFLOWS, declared("Workflow"))
    await operator.settle()
    await operator.cluster.delete(ENGINES, "default", "team")
    operator.observed.drop(ENGINES, "team", "default")
    await operator.settle()
    assert copied(operator) == ["base"]


async def test_an_engine_that_is_wrong_keeps_them(operator: Operator) -> None:
    operator.declare(CLUSTER_POLICIES, policy())
    operator.declare(ENGINES, declared("Engine", changes={"spec.security.requireNetworkIsolation": "Maybe"}))
    await operator.settle()
    assert copied(operator) == ["base"]


async def test_a_rule_that_cannot_be_right_is_told(operator: Operator) -> None:
    wrong = {"calls": [{"name": "no", "when": "surprise == 1"}]}
    operator.declare(CLUSTER_POLICIES, policy(rules=wrong))
    await operator.settle()
    standing = operator.cluster.find(CLUSTER_POLICIES, "base", "")
    assert standing is not None
    ready = next(c for c in standing["status"]["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSpec")
    assert "there is no 'surprise'" in ready["message"]


def test_labels_concern_the_engine_and_the_counts_and_nothing_else_does() -> None:
    observed = Observed()
    observed.put(CLUSTER_POLICIES, policy())
    keys = {Key("engines", "team", "default"), Key("clusterpolicies", "", "base")}
    assert affected(NAMESPACES, namespace(), namespace(tier="prod"), observed) == keys
    assert affected(NAMESPACES, namespace(), namespace(), observed) == set()
    observed.put(ENGINES, declared("Engine"))
    assert affected(CLUSTER_POLICIES, None, policy(), observed) == keys
