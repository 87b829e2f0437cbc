"""A ClusterPolicy says what its rules did in all namespaces: the sum of what Engines say, never less than it was."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, declared, namespace
from tests.unit.controllers.test_clusterpolicy import policy
from tests.unit.controllers.test_reconcile import Operator

from fairlead.api.clusterpolicy import MOST_NAMESPACES
from fairlead.controllers.clusterpolicy import A_LOT, COUNTS_SECONDS, counts
from fairlead.controllers.queue import Key
from fairlead.kube.types import CLUSTER_POLICIES, ENGINES, NAMESPACES

KEY = Key("clusterpolicies", "", "base")


def row(*numbers: int, name: str = "base", uid: str = "uid-of-base") -> Object:
    return {"name": name, "uid": uid, **dict(zip(("denied", "wouldDeny", "asked"), numbers, strict=True))}


def says(space: str, *rows: Object, uid: str = "") -> Object:
    """An Engine with these counts."""
    return {"metadata": {"name": "default", "namespace": space, "uid": uid or f"e-{space}"}, "status": of(*rows)}


def of(*rows: Object) -> Object:
    return {"clusterPolicyCalls": list(rows)}


def summed(before: Object, *engines: Object) -> tuple[Object, list[int]]:
    """Return the status, and its numbers."""
    after = counts({**policy(), "status": before}, engines)
    return after, list(after["calls"].values())


def test_nothing_was_done_where_nobody_says_anything() -> None:
    status, calls = summed({}, says("a"), says("b", row(9, 9, 9, name="other", uid="another")))
    assert calls == [0, 0, 0] and status["byNamespace"] == []


def test_the_sum_grows_by_what_is_new_whoever_looks_how_often() -> None:
    first, calls = summed({}, says("b", row(1, 2, 3)), says("a", row(0, 5, 0)))
    assert calls == [1, 7, 3]
    assert [(one["namespace"], one["wouldDeny"]) for one in first["byNamespace"]] == [("a", 5), ("b", 2)]
    again, calls = summed(first, says("a", row(0, 5, 0)), says("b", row(1, 2, 3)))
    assert again == first, "an operator that has just started has only the status to go by"
    _, calls = summed(again, says("a", row(0, 6, 0)), says("b", row(1, 2, 3)))
    assert calls == [1, 8, 3]


@pytest.mark.parametrize(
    "left",
    [
        pytest.param([says("a", row(0, 5, 0))], id="a namespace is gone"),
        pytest.param([says("a", row(0, 5, 0)), says("b", uid="e2")], id="another Engine"),
    ],
)
def test_what_was_counted_stays_whoever_goes(left: list[Object]) -> None:
    first, _ = summed({}, says("a", row(0, 5, 0)), says("b", row(1, 2, 3)))
    after, calls = summed(first, *left)
    assert calls == [1, 7, 3]
    assert [one["namespace"] for one in after["byNamespace"]] == ["a"], "of those that there are"


def test_an_engine_that_says_nothing_for_a_while_is_not_counted_twice() -> None:
    first, _ = summed({}, says("b", row(1, 2, 3)))
    silent, calls = summed(first, says("b"))
    assert calls == [1, 2, 3] and silent == first
    _, calls = summed(silent, says("b", row(1, 3, 3)))
    assert calls == [1, 3, 3]


@pytest.mark.parametrize("uid", ["e2", ""])
def test_who_begins_anew_is_counted_anew(uid: str) -> None:
    first, _ = summed({}, says("b", row(1, 2, 3)))
    _, calls = summed(first, says("b", row(0, 1, 0), uid=uid))
    assert calls == [1, 3, 3]


def test_another_policy_of_the_name_begins_at_nothing() -> None:
    _, calls = summed({}, says("a", row(0, 5, 0, uid="of the one before")))
    assert calls == [0, 0, 0]


def test_no_engine_says_more_than_the_api_server_can_hold() -> None:
    status: Object = {}
    for round_ in range(3):
        status, calls = summed(status, says("a", row(2**63 - 1, 0, 0), uid=str(round_)), says("b", row(1, 0, 0)))
        assert calls == [A_LOT, 0, 0] and status["byNamespace"][0]["denied"] == A_LOT


def test_of_a_crowd_those_that_are_counted_stay_so() -> None:
    crowd = [says(f"n{n:04}", row(0, 1, 0)) for n in range(MOST_NAMESPACES)]
    first, calls = summed({}, *crowd)
    assert calls == [0, MOST_NAMESPACES, 0]
    after, calls = summed(first, says("a", row(0, 1, 0)), *crowd)
    assert calls == [0, MOST_NAMESPACES, 0] and after == first


@pytest.fixture
async def operator() -> Operator:
    """A cluster of one namespace, whose Engine says nothing yet."""
    made = Operator()
    made.declare(NAMESPACES, namespace())
    made.declare(CLUSTER_POLICIES, policy(mode="Audit"))
    made.declare(ENGINES, declared("Engine"))
    await made.settle()
    return made


def told(operator: Operator) -> Any:
    found = operator.cluster.find(CLUSTER_POLICIES, "base", "")
    return (found or {})["status"]["calls"]["wouldDeny"]


def hears(operator: Operator, *rows: Object) -> Object:
    engine = operator.observed.get(ENGINES, "team", "default")
    assert engine is not None
    operator.see(ENGINES, {**engine, "status": {**engine["status"], **of(*rows)}})
    return engine


async def test_counts_that_changed_are_summed_up_once_in_a_while(operator: Operator) -> None:
    assert told(operator) == 0
    for number in range(1, 6):
        hears(operator, row(0, number, 0))
        assert KEY not in await operator.settle(), "each of many engines may write every five seconds"
        operator.now += 1
    operator.now += COUNTS_SECONDS
    assert (await operator.settle()).count(KEY) == 1
    assert told(operator) == 5
    operator.now += COUNTS_SECONDS
    assert KEY not in await operator.settle(), "nothing new"


async def test_an_engine_that_goes_takes_nothing_along(operator: Operator) -> None:
    hears(operator, row(0, 5, 0))
    operator.now += COUNTS_SECONDS
    await operator.settle()
    operator.observed.drop(ENGINES, "team", "default")
    operator.now += COUNTS_SECONDS
    assert KEY in await operator.settle()
    assert told(operator) == 5


async def test_a_spec_that_is_not_understood_loses_no_counts(operator: Operator) -> None:
    hears(operator, row(0, 5, 0))
    standing = operator.observed.get(CLUSTER_POLICIES, "", "base")
    assert standing is not None
    head = {**standing["metadata"], "generation": 2}
    operator.see(CLUSTER_POLICIES, {**standing, "metadata": head, "spec": {"mode": "Maybe", "rules": {}}})
    await operator.settle()
    assert operator.cluster.find(CLUSTER_POLICIES, "base", "")["status"]["conditions"][0]["status"] == "False"  # type: ignore[index]
    assert told(operator) == 5
