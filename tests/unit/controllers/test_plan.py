from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.controllers.declared import declared

from fairlead.api.canonical import MAX_SPEC_DEPTH
from fairlead.api.model import Model
from fairlead.api.reasons import NetworkReason, ReadyReason
from fairlead.api.workflow import Workflow
from fairlead.controllers.plan import Object, Said, Verdict, listed, parse, status_of
from fairlead.errors import InvalidSpec

READY = Verdict(True, ReadyReason.READY, "can run")
STALLED = Verdict(False, ReadyReason.INVALID_SPEC, "spec.steps: wrong", stalled=True)
ENDPOINT = {"api": "OpenAIChat", "model": "m"}
BEFORE, AFTER = "2026-01-01T00:00:00Z", "2026-02-02T00:00:00Z"


def written(obj: Object, verdict: Verdict, *, now: str) -> Object:
    status = status_of(obj, verdict, now=now)
    assert status is not None
    return {**obj, "status": status}


def conditions(obj: Object) -> dict[str, Object]:
    return {condition["type"]: condition for condition in obj["status"]["conditions"]}


def test_a_status_says_which_generation_it_is_about() -> None:
    obj = written(declared("Workflow", changes={"metadata": {"name": "w", "generation": 7}}), READY, now=BEFORE)
    assert obj["status"]["observedGeneration"] == 7
    assert conditions(obj)["Ready"]["observedGeneration"] == 7


def test_a_status_that_stands_there_is_not_written_again() -> None:
    for verdict in (READY, STALLED):
        obj = written(declared("Workflow"), verdict, now=BEFORE)
        assert status_of(obj, verdict, now=AFTER) is None


def test_the_transition_time_changes_with_the_status_only() -> None:
    obj = written(declared("Workflow"), STALLED, now=BEFORE)
    other = written(obj, Verdict(False, ReadyReason.UNKNOWN_REFERENCE, "another", stalled=True), now=AFTER)
    assert {condition["lastTransitionTime"] for condition in conditions(other).values()} == {BEFORE}
    assert conditions(written(obj, READY, now=AFTER))["Ready"]["lastTransitionTime"] == AFTER


def test_a_permanent_failure_is_stalled_and_a_cured_one_is_not() -> None:
    obj = written(declared("Workflow"), STALLED, now=BEFORE)
    assert conditions(obj)["Stalled"]["status"] == "True"
    assert "Stalled" not in conditions(written(obj, READY, now=AFTER))


def test_conditions_of_others_are_neither_sent_nor_missed() -> None:
    obj = written(declared("Workflow"), READY, now=BEFORE)
    authorized = {**conditions(obj)["Ready"], "type": "Authorized"}
    obj["status"]["conditions"].append(authorized)
    assert status_of(obj, READY, now=AFTER) is None
    assert set(conditions(written(obj, STALLED, now=AFTER))) == {"Ready", "Stalled"}


def test_another_condition_of_the_operators_is_kept_with_its_time() -> None:
    said = Said("NetworkIsolation", False, NetworkReason.WIDENED_BY_POLICY, "by x")
    obj = declared("Engine")
    status = status_of(obj, READY, said=[said], now=BEFORE)
    assert status is not None
    obj = {**obj, "status": status}
    assert conditions(obj)["NetworkIsolation"]["reason"] == "WidenedByPolicy"
    assert status_of(obj, READY, said=[said], now=AFTER) is None
    status = status_of(obj, READY, said=[replace(said, message="by y")], now=AFTER)
    assert status is not None
    assert conditions({"status": status})["NetworkIsolation"]["lastTransitionTime"] == BEFORE


@pytest.mark.parametrize("garbage", [{}, {"type": "Ready"}, {"type": "Ready", "status": "Maybe", "reason": "x"}])
def test_garbage_in_the_status_is_replaced(garbage: Object) -> None:
    obj = {**declared("Workflow"), "status": {"conditions": [garbage]}}
    assert conditions(written(obj, READY, now=AFTER))["Ready"]["status"] == "True"


@pytest.mark.parametrize(
    ("kind", "changes", "path"),
    [
        ("Workflow", {"spec.steps": []}, "spec.steps"),
        ("Workflow", {"spec.steps.0.name": 7}, "spec.steps[0].name"),
        ("Workflow", {"spec.steps.0.route.minScorePercent": 101}, "spec.steps[0].route.minScorePercent"),
        ("Workflow", {"spec.surprise": 1}, "spec.surprise"),
        ("Model", {"spec.server.port": "many"}, "spec.server.port"),
        ("Model", {"spec.endpoint": ENDPOINT | {"url": "https://models..example.com/v1"}}, "spec.endpoint.url"),
        ("Model", {"spec.endpoint": ENDPOINT | {"url": f"https://{'m' * 64}.example.com"}}, "spec.endpoint.url"),
    ],
)
def test_a_malformed_object_is_told_where(kind: str, changes: dict[str, object], path: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(Workflow if kind == "Workflow" else Model, declared(kind, changes=changes))
    assert caught.value.path == path


def test_a_status_of_another_version_does_not_make_an_object_malformed() -> None:
    assert parse(Workflow, {**declared("Workflow"), "status": {"from": "the future"}}).metadata.name == "triage"


def test_many_problems_make_a_message_of_bounded_length() -> None:
    assert listed(["a", "b"]) == "a; b"
    assert listed([str(number) for number in range(9)]) == "0; 1; 2; 3; 4; and 4 more"


@pytest.mark.requirement("A34")
def test_an_object_that_is_nested_too_deep_is_told() -> None:
    value: object = 1
    for _ in range(MAX_SPEC_DEPTH):
        value = [value]
    with pytest.raises(InvalidSpec, match="spec: nested deeper than 200 levels"):
        parse(Workflow, declared("Workflow", changes={"spec.steps.4.transform": {"value": value}}))
