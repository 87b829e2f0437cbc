"""Poison objects: whatever somebody manages to get past an older CRD disturbs nothing but itself.

Specimens with values replaced by hostile ones go through everything that looks at objects: the operator, the engine's
view of the namespace, the static checks, the analysis of data flow. Each gets a verdict; nobody falls over, and the
healthy Workflow beside it stays Ready.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.specimens import specimen
from tests.unit.controllers.declared import available, declared
from tests.unit.controllers.test_reconcile import Operator
from tests.unit.engine.test_cluster import Cluster
from tests.unit.policy.test_decide import SEARCH
from tests.unit.policy.test_rules import HERE

from fairlead.api.policy import Policy
from fairlead.api.workflow import Workflow
from fairlead.flow.checks import check_workflow
from fairlead.flow.worst import worst_of
from fairlead.kube.types import CLUSTER_POLICIES, ENGINES, MODELS, POLICIES, STATEFUL_SETS, TOOLS, WORKFLOWS
from fairlead.policy.decide import decide
from fairlead.policy.rules import binding, problems, unreadable

TYPES = {"Workflow": WORKFLOWS, "Tool": TOOLS, "Model": MODELS, "Policy": POLICIES, "Engine": ENGINES}
HOSTILE: tuple[Any, ...] = (
    *("$(touch /p)", "`id`", "'; rm -rf /", "{{7*7}}", "${{7*7}}", "${jndi:ldap://x}", "__import__('os').system('id')"),
    *("$( __import__('os') )", "$( (((((((((( )", "$( input", "$$(", "$( ().__class__ )", "(a+)+$", "\x00", "\n--flag"),
    *("\ud800", "\u202e\u200b", "a" * 1_000_000, "", " ", "/", "..", "../../etc/passwd", "ENDVAL"),
    *("true", "null", "1e999", "-1"),
    *(None, True, False, 0, -1, 2**63, 10**400, 1.5, [], {}, [[]], [None], {"": ""}, {"a": {"b": {"c": None}}}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where a value could stand, parts and leaves alike."""
    if path:
        yield path
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from places(below, (*path, key))


def replaced(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    result = copy.deepcopy(obj)
    place = result
    try:
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
    except (TypeError, KeyError, IndexError):
        pass  # an earlier change took the place away
    return result


@st.composite
def poisoned_parts(draw: st.DrawFn, parts: dict[str, Any]) -> dict[str, Any]:
    """Draw a copy of parts of an object in which some values are hostile."""
    ways, found = [*places(parts)], parts
    for _ in range(draw(st.integers(1, 3))):
        found = replaced(found, draw(st.sampled_from(ways)), draw(st.sampled_from(HOSTILE)))
    return found


def poisoned(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a specimen's spec in which some values are hostile."""
    return poisoned_parts(specimen(kind)["spec"])


SLOW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.requirement("A25", "A34")
def test_the_operator_gives_a_verdict_and_the_others_go_on(kind: str) -> None:
    @given(poisoned(kind))
    @SLOW
    def holds(spec: dict[str, Any]) -> None:
        asyncio.run(_operated(kind, spec))

    holds()


async def _operated(kind: str, spec: dict[str, Any]) -> None:
    operator, rt = Operator(), TYPES[kind]
    healthy = declared("Workflow", "healthy")
    healthy["spec"] = {"steps": [{"name": "a", "transform": {"value": 1}}]}
    operator.declare(WORKFLOWS, healthy)
    name = "default" if kind == "Engine" else "poison"
    operator.declare(rt, declared(kind, name) | {"spec": spec})
    await operator.settle()
    workload = operator.cluster.find(STATEFUL_SETS, "fairlead-engine")
    if workload is not None:  # an Engine that cannot be right has none, and that is all that it stops
        operator.see(STATEFUL_SETS, available(workload))
        await operator.settle()
        assert operator.condition(WORKFLOWS, "healthy")["status"] == "True"
    assert operator.condition(rt, name)["status"] in ("True", "False", "Unknown")


@given(poisoned("ClusterPolicy"))
@SLOW
@pytest.mark.requirement("A34")
def test_a_cluster_policy_is_copied_or_told_and_never_lost(spec: dict[str, Any]) -> None:
    async def operated() -> None:
        operator = Operator()
        head = {"name": "poison", "uid": "u", "generation": 1, "resourceVersion": "1"}
        operator.declare(CLUSTER_POLICIES, {"metadata": head, "spec": spec})
        operator.declare(WORKFLOWS, declared("Workflow"))
        await operator.settle()
        engine = operator.cluster.find(ENGINES, "default")
        assert engine is not None and "clusterPolicies" in engine["status"]

    asyncio.run(operated())


@pytest.mark.parametrize("kind", ["Workflow", "Tool", "Model", "Policy", "Engine"])
@pytest.mark.requirement("A34")
def test_the_engine_takes_it_or_leaves_it(kind: str, tmp_path: Path) -> None:
    @given(poisoned(kind))
    @SLOW
    def holds(spec: dict[str, Any]) -> None:
        cluster = Cluster(tmp_path)
        head = {"name": "default" if kind == "Engine" else "poison", "namespace": "team", "uid": "u"}
        cluster.tell(kind, None, {"metadata": head, "spec": spec})
        assert cluster.changes == [(kind, head["name"])]

    holds()


@given(poisoned("Workflow"))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.requirement("A25", "A34")
def test_what_parses_is_checked_to_the_end(spec: dict[str, Any]) -> None:
    try:
        workflow = Workflow.model_validate({"metadata": {"name": "poison"}, "spec": spec})
    except ValidationError:
        return
    for finding in check_workflow(workflow.spec, models={"small"}, tools={"tickets": {"search": None}}, workflows={}):
        assert finding.path and finding.message
    worst_of(workflow, {}, {"poison": workflow})


@given(poisoned("Policy"))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.requirement("A34", "P5")
def test_a_policy_is_held_or_denies_and_never_falls_away(spec: dict[str, Any]) -> None:
    obj = {"metadata": {"name": "poison"}, "spec": spec}
    try:
        policy = Policy.model_validate(obj)
    except ValidationError:
        try:
            stand_in = unreadable(obj)
        except (AttributeError, TypeError):
            pytest.fail(f"nothing stands in for {spec}")
        if stand_in is None:
            return
        policy = stand_in
    problems(policy)
    scope: dict[str, Any] = {"call": {}, "run": {"requestedBy": ""}, "workflow": {}}
    decision = decide(SEARCH, _snapshot(policy, scope))
    assert decision.verdict in ("Allow", "Deny", "Wait")


def _snapshot(policy: Policy, scope: dict[str, Any]) -> Any:
    from dataclasses import replace

    return replace(HERE, policies=binding([policy], None), scope=scope)
