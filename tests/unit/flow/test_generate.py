"""generate: one model call, its output contract, and corrections in the same conversation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, chat, drive, error, plan_of, step

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
JUDGE = {"model": "judge", "criteria": "Is it about $( input.topic )?", "minScorePercent": 60}


def run_generate(*answers: Any, **generate: Any) -> Driver:
    """Run one generate step; models answer these one after the other."""
    left = iter(answers)
    world = World(answer=lambda call: next(left))
    definition = {"model": "m", "prompt": "Say $( input.topic ).", **generate}
    return drive(plan_of([{"name": "a", "generate": definition}]), world, {"topic": "cats"})


def requests(driver: Driver) -> list[Mapping[str, Any]]:
    return [call.request for call in driver.world.performed]


def failure(driver: Driver) -> tuple[str, str, str]:
    failed = step(driver.state, "a").error
    assert failed is not None
    return failed.error_class, failed.reason, failed.message


def score(percent: Any, reason: str = "so so") -> dict[str, Any]:
    return chat(json.dumps({"score": percent, "reason": reason}))


def test_the_request_is_made_of_what_the_step_says() -> None:
    parameters = {"maxOutputTokens": 9, "temperature": "0.2", "seed": 4}
    driver = run_generate(chat("hi"), instructions="Be brief.", parameters=parameters)
    assert requests(driver) == [
        {
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say cats."}],
            "parameters": parameters,
        }
    ]
    assert step(driver.state, "a").output == {"text": "hi"}


def test_messages_are_sent_as_they_stand() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "$( input.topic )"}]
    driver = run_generate(chat("hi"), messages=messages, prompt=None)
    assert [message["content"] for message in requests(driver)[0]["messages"]] == ["a", "cats"]


def test_the_workflow_s_default_model_is_asked() -> None:
    world = World(answer=lambda call: chat(call.target))
    plan = plan_of([{"name": "a", "generate": {"prompt": "x"}}], defaults={"model": "small"})
    assert step(drive(plan, world).state, "a").output == {"text": "small"}


@pytest.mark.parametrize("content", ['{"n": 1}', '```json\n{"n": 1}\n```', ' ```\n{"n": 1}```\n'])
def test_an_answer_with_a_schema_is_parsed(content: str) -> None:
    driver = run_generate(chat(content), output={"schema": SCHEMA})
    assert requests(driver)[0]["schema"] == SCHEMA
    assert step(driver.state, "a").output == {"n": 1}


@pytest.mark.requirement("A28")
@pytest.mark.parametrize(
    ("content", "finding"),
    [
        ("I think {} is right", "not JSON"),
        ("", "not JSON"),
        ('{"n": NaN}', "not JSON"),
        ('{"n": 1', "not JSON"),
        ('{"n": 2, "n": 3}', "not JSON"),
        ('{"n": 18446744073709551616}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "[" * 65 + "]" * 65 + "}", "not JSON"),
        ('{"n": "x"}', "/n"),
        ("{}", "n"),
        ('{"n": 1}', "too small"),
    ],
)
def test_what_is_wrong_goes_back_into_the_conversation(content: str, finding: str) -> None:
    contract = {
        "schema": SCHEMA,
        "rules": [{"expression": "output.n > 1", "message": "n is too small"}],
        "revisions": 1,
    }
    driver = run_generate(chat(content), chat('{"n": 2}'), output=contract)
    said, asked = requests(driver)[1]["messages"][-2:]
    assert said == {"role": "assistant", "content": content}
    assert finding in asked["content"]
    assert step(driver.state, "a").output == {"n": 2}


def test_revisions_are_bounded_and_the_failure_tells_no_content() -> None:
    rules = [{"expression": "output.text == input.topic", "message": "say the topic"}]
    driver = run_generate(chat("x1"), chat("x2"), chat("x3"), output={"rules": rules, "revisions": 2})
    assert failure(driver) == ("ModelError", "OutputRejected", "say the topic")
    assert [str(call.id.index) for call in driver.world.performed] == ["0.0.0", "1.0.0", "2.0.0"]


def test_an_empty_answer_is_none() -> None:
    assert failure(run_generate(chat(" \n")))[1:] == ("OutputRejected", "the answer is empty")


def test_a_rule_that_cannot_be_evaluated_fails_the_step() -> None:
    rules = [{"expression": "output.missing > 1", "message": "never"}]
    assert failure(run_generate(chat("x"), output={"rules": rules}))[:2] == ("Invalid", "ExpressionFailed")


@pytest.mark.parametrize(("percent", "phase"), [(60, "Succeeded"), (59, "Failed")])
def test_a_judge_s_score_decides(percent: int, phase: str) -> None:
    driver = run_generate(chat("meow"), score(percent, "the secret"), output={"judge": JUDGE})
    assert step(driver.state, "a").phase == phase
    asked = driver.world.performed[1]
    assert (asked.target, str(asked.id.index)) == ("judge", "0.1.0")
    assert "Is it about cats?" in asked.request["messages"][1]["content"]
    if phase == "Failed":
        assert failure(driver)[2] == "the judge scored 59, 60 is needed"


def test_a_judge_s_reason_is_told_to_the_model_only() -> None:
    contract = {"judge": JUDGE, "revisions": 1}
    driver = run_generate(chat("woof"), score(1, "that is a dog"), chat("meow"), score(99), output=contract)
    assert "that is a dog" in requests(driver)[2]["messages"][-1]["content"]
    assert step(driver.state, "a").output == {"text": "meow"}


def test_a_judge_is_not_asked_about_what_the_rules_refuse() -> None:
    contract = {"judge": JUDGE, "rules": [{"expression": "false", "message": "no"}]}
    assert len(run_generate(chat("x"), output=contract).world.performed) == 1


@pytest.mark.parametrize(
    "judgement", [chat("fine!"), score(101), score("90"), chat('{"score": 1, "score": 90, "reason": ""}')]
)
def test_a_judge_that_gives_no_score_fails_the_step(judgement: dict[str, Any]) -> None:
    assert failure(run_generate(chat("x"), judgement, output={"judge": JUDGE}))[:2] == ("ModelError", "JudgeFailed")


@pytest.mark.parametrize("answers", [[error("Unavailable")], [chat("x"), error("Unavailable")]], ids=["model", "judge"])
def test_a_failed_call_fails_the_step(answers: list[Any]) -> None:
    assert failure(run_generate(*answers, output={"judge": JUDGE}))[0] == "Unavailable"
