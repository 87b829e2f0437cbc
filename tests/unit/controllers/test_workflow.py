from __future__ import annotations

from typing import Any

import pytest
from tests.unit.controllers.declared import Object, declared, ready

from fairlead.api.reasons import ReadyReason
from fairlead.controllers.plan import Plan
from fairlead.controllers.workflow import plan

ENGINE = ready(declared("Engine", "default"))
MODELS = [
    declared("Model", "small"),
    declared("Model", "embedder", changes={"spec.server.api": "OpenAIEmbeddings"}),
]
TOOLS = [declared("Tool", "tickets")]
RESEARCHER = declared(
    "Workflow",
    "researcher",
    changes={"spec": {"steps": [{"name": "look", "transform": {"value": "$( input.topic )"}}]}},
)


def planned(changes: dict[str, Any] | None = None, *, engine: Object | None = ENGINE, **others: list[Object]) -> Plan:
    world = {"models": MODELS, "tools": TOOLS, "workflows": [RESEARCHER]} | others
    return plan(declared("Workflow", changes=changes), engine=engine, **world)


def test_a_workflow_that_is_right_is_ready_and_needs_nothing_built() -> None:
    verdict = planned().verdict
    assert verdict is not None
    assert (verdict.ready, verdict.stalled, verdict.message) == (True, False, "can run")
    assert planned().apply == planned().create == planned().delete == ()


@pytest.mark.parametrize(
    ("changes", "reason", "path"),
    [
        ({"spec.steps.0.route.choices": []}, ReadyReason.INVALID_SPEC, "spec.steps[0].route.choices"),
        ({"spec.steps.1.when": "1 +"}, ReadyReason.INVALID_SPEC, "spec.steps[1].when"),
        ({"spec.steps.1.agent.model": "none"}, ReadyReason.UNKNOWN_REFERENCE, "spec.steps[1].agent.model"),
        (
            {"spec.blocks.0.steps.0.tool.function": "nope"},
            ReadyReason.UNKNOWN_REFERENCE,
            "spec.blocks[0].steps[0].tool",
        ),
    ],
)
def test_what_cannot_be_right_is_stalled_and_named_by_its_field(
    changes: dict[str, Any], reason: ReadyReason, path: str
) -> None:
    verdict = planned(changes).verdict
    assert verdict is not None
    assert (verdict.ready, verdict.reason, verdict.stalled) == (False, reason, True)
    assert path in verdict.message


def test_others_that_always_run_it_again_are_followed_and_malformed_ones_are_not() -> None:
    always = {"spec.steps": [{"name": "again", "workflow": {"workflow": "researcher"}}]}
    back = declared(
        "Workflow", "researcher", changes={"spec": {"steps": [{"name": "x", "workflow": {"workflow": "w"}}]}}
    )
    own = declared("Workflow", "w", changes=always | {"spec.output": None})
    broken = declared("Workflow", "researcher", changes={"spec": {"steps": 7}})
    world: dict[str, Any] = {"models": MODELS, "tools": TOOLS, "engine": ENGINE}
    looped = plan(own, workflows=[own, back], **world).verdict
    assert looped is not None and "always runs itself again: w -> researcher -> w" in looped.message
    unknown = plan(own, workflows=[own, broken], **world).verdict
    assert unknown is not None and "again" not in unknown.message


def test_what_models_speak_is_looked_at() -> None:
    verdict = planned({"spec.steps.1.agent.model": "embedder"}).verdict
    assert verdict is not None
    assert (verdict.ready, verdict.reason) == (False, ReadyReason.INVALID_SPEC)
    assert "spec.steps[1].agent.model: Model 'embedder' makes embeddings" in verdict.message
    endpoint = {"api": "OpenAIEmbeddings", "url": "https://models.example/v1", "model": "x"}
    far = declared("Model", "small", changes={"spec": {"endpoint": endpoint}})
    elsewhere = planned(models=[far, MODELS[1]]).verdict
    assert elsewhere is not None and "Model 'small' makes embeddings" in elsewhere.message
    malformed = planned(models=[declared("Model", "small", changes={"spec": {"server": 7}}), MODELS[1]]).verdict
    assert malformed is not None and malformed.ready


def test_arguments_are_held_against_the_contract_of_the_tool() -> None:
    call = {"tool": "tickets", "function": "create", "arguments": {"title": 7}}
    verdict = planned({"spec.blocks.0.steps.0.tool": call}).verdict
    assert verdict is not None
    assert (verdict.ready, verdict.reason) == (False, ReadyReason.INVALID_SPEC)
    assert "spec.blocks[0].steps[0].tool.arguments: does not fit tickets.create" in verdict.message


def test_a_reference_is_looked_up_among_what_is_declared_now() -> None:
    verdict = planned(models=[]).verdict
    assert verdict is not None
    assert verdict.reason == ReadyReason.UNKNOWN_REFERENCE
    assert "small" in verdict.message


@pytest.mark.parametrize("account", ["default", "fairlead-engine", "fairlead-none"])
def test_a_reserved_account_never_runs_a_workflow_even_where_admission_let_it_in(account: str) -> None:
    verdict = planned({"spec.serviceAccountName": account}).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.stalled) == (ReadyReason.RESERVED_ACCOUNT, True)


@pytest.mark.parametrize(
    "engine",
    [
        None,
        declared("Engine", "default"),
        ready(declared("Engine", "default"), status="False", message="ImagePullBackOff"),
        ready(declared("Engine", "default"), generation=0),
    ],
    ids=["missing", "not looked at", "not ready", "ready at an older generation"],
)
def test_a_workflow_waits_for_an_engine_that_is_ready_at_its_current_generation(engine: Object | None) -> None:
    verdict = planned(engine=engine).verdict
    assert verdict is not None
    assert (verdict.ready, verdict.reason, verdict.stalled) == (False, ReadyReason.ENGINE_NOT_READY, False)
