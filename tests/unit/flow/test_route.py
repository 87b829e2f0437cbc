"""route: by rule, by meaning, by a chat model; and the block of what was chosen."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, chat, drive, error, model, plan_of, step

from fairlead.flow.calls import Call, CallKind

CHOICES = [
    {"name": "billing", "when": "input.text.contains('invoice')", "description": "money", "examples": ["I paid"]},
    {"name": "technical", "description": "broken", "block": "diagnose"},
    {"name": "other"},
]
BLOCKS = [{"name": "diagnose", "steps": [{"name": "look", "transform": {"value": "looked"}}]}]


def run_route(answer: Any = None, *, text: str = "help", api: str = "OpenAIEmbeddings", **route: Any) -> Driver:
    world = World(answer=answer or (lambda call: error("Internal")), models={"m": model(api=api)})
    definition = {"value": "$( input.text )", "choices": CHOICES, **route}
    return drive(plan_of([{"name": "a", "route": definition}], blocks=BLOCKS), world, {"text": text})


def vectors(*rows: list[float]) -> Any:
    return lambda call: {"vectors": list(rows)}


def chosen(driver: Driver) -> Any:
    output = step(driver.state, "a").output
    return output["choice"] if output else step(driver.state, "a").error.reason  # type: ignore[union-attr]


def test_a_rule_decides_without_a_model() -> None:
    driver = run_route(text="my invoice", model="m")
    assert step(driver.state, "a").output == {"choice": "billing", "output": None}
    assert driver.world.performed == []


def test_the_nearest_description_or_example_wins_and_its_block_runs() -> None:
    driver = run_route(vectors([1, 0], [0, 1], [0.5, 1], [2, 0.1], [1, 1]), model="m")
    assert driver.world.performed[0].request == {"texts": ["help", "money", "I paid", "broken", "other"]}
    assert step(driver.state, "a").output == {"choice": "technical", "output": "looked"}
    assert step(driver.state, "a/look").phase == "Succeeded"


@pytest.mark.parametrize(
    ("score_percent", "otherwise", "choice"),
    [(99, None, "NoChoice"), (99, "other", "other"), (10, "other", "billing"), (None, None, "billing")],
)
def test_below_the_least_score_it_is_otherwise(score_percent: int | None, otherwise: str | None, choice: str) -> None:
    answer = vectors([1, 0], [1, 1], [0, 1], [0, 1], [0, 1])
    assert chosen(run_route(answer, model="m", minScorePercent=score_percent, otherwise=otherwise)) == choice


def test_the_first_of_equals_wins() -> None:
    assert chosen(run_route(vectors(*[[1.0, 1.0]] * 5), model="m")) == "billing"


def test_vectors_that_do_not_match_the_texts_fail_the_step() -> None:
    assert chosen(run_route(vectors([1.0], [1.0]), model="m")) == "BadEmbedding"


@pytest.mark.parametrize(
    ("content", "otherwise", "choice"),
    [
        ('{"choice": "other"}', None, "other"),
        ('{"choice": "none"}', "other", "other"),
        ('{"choice": []}', "other", "other"),
        ('{"choice": "billing", "choice": "technical"}', "other", "other"),
        ("other", None, "NoChoice"),
    ],
)
def test_a_chat_model_can_only_name_a_choice(content: str, otherwise: str | None, choice: str) -> None:
    driver = run_route(lambda call: chat(content), api="OpenAIChat", model="m", otherwise=otherwise)
    assert driver.world.performed[0].kind is CallKind.CHAT
    names = driver.world.performed[0].request["schema"]["properties"]["choice"]["enum"]
    assert names == ["billing", "technical", "other"]
    assert chosen(driver) == choice


@pytest.mark.parametrize(("otherwise", "choice"), [("other", "other"), (None, "NoChoice")])
def test_without_a_model_it_is_otherwise(otherwise: str | None, choice: str) -> None:
    assert chosen(run_route(otherwise=otherwise)) == choice


@pytest.mark.requirement("G1")
def test_a_later_attempt_goes_the_way_that_was_chosen() -> None:
    def answer(call: Call) -> Any:
        if call.kind is CallKind.EMBED:
            asked.append(call)
            return {"vectors": [[1, 0], *[[0, 1]] * 2, [1, 0], [0, 1]]}
        return error("Unavailable") if call.id.attempt == 1 else {}

    asked: list[Call] = []
    diagnose = {"name": "diagnose", "steps": [{"name": "look", "tool": {"tool": "t", "function": "f"}}]}
    route = {"value": "$( input.text )", "choices": CHOICES, "model": "m"}
    steps = [{"name": "a", "route": route, "retry": {"limit": 1}}]
    world = World(answer=answer, models={"m": model(api="OpenAIEmbeddings")})
    driver = drive(plan_of(steps, blocks=[diagnose]), world, {"text": "help"})
    assert step(driver.state, "a").output == {"choice": "technical", "output": {}}
    assert len(asked) == 1
