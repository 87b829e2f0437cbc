"""What Models cannot do is known before they are asked: embeddings are no text, chats give no score."""

from __future__ import annotations

import pytest
import yaml

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.checks import check_workflow

CHOICES = "choices: [{name: a, description: x}, {name: b, description: y}]"
NO_TEXT = "Model 'nearest' makes embeddings and writes no text: name one of api OpenAIChat"


def found(text: str, embedders: list[str] | None) -> list[str]:
    spec = WorkflowSpec.model_validate(yaml.safe_load(text))
    return [str(one) for one in check_workflow(spec, models=["small", "nearest"], tools=None, embedders=embedders)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: [{name: a, generate: {model: nearest, prompt: x}}]", f"spec.steps[0].generate.model: {NO_TEXT}"),
        ("steps: [{name: a, agent: {model: nearest, prompt: x}}]", f"spec.steps[0].agent.model: {NO_TEXT}"),
        (
            "steps: [{name: a, validate: {value: 1, judge: {model: nearest, criteria: good}}}]",
            f"spec.steps[0].validate.judge.model: {NO_TEXT}",
        ),
        (
            "{defaults: {model: nearest}, steps: [{name: a, generate: {prompt: x}}]}",
            f"spec.defaults.model: {NO_TEXT}",
        ),
        (
            f"steps: [{{name: a, route: {{value: x, model: small, minScorePercent: 50, otherwise: a, {CHOICES}}}}}]",
            "spec.steps[0].route.minScorePercent: Model 'small' chats and gives no score: name one of api "
            "OpenAIEmbeddings, or leave this away",
        ),
    ],
)
def test_a_model_that_cannot_do_it_is_found(text: str, said: str) -> None:
    assert found(text, ["nearest"]) == [said]
    assert found(text, None) == []


@pytest.mark.parametrize("model", ["small", "nearest"])
def test_a_route_asks_either(model: str) -> None:
    score = "minScorePercent: 50, " if model == "nearest" else ""
    route = f"route: {{value: x, model: {model}, {score}otherwise: a, {CHOICES}}}"
    assert found(f"steps: [{{name: a, {route}}}]", ["nearest"]) == []
