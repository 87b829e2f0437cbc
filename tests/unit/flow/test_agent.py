"""The agent's loop: turns, parallel calls, repairs, denials, the last turn, revisions; native and constrained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.unit.flow.world import Driver, World, chat, drive, error, model, plan_of, step, tool

from fairlead.api.canonical import canonical_json
from fairlead.api.model import ModelLimits
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.journal import RunUid
from fairlead.flow.schema import findings
from fairlead.flow.steps.conversation import BYTES_PER_TOKEN, LEFT_OUT, TURNS_LEFT_OUT

SEARCH = {
    "name": "find.it",
    "effect": "Read",
    "description": "Finds things.",
    "input": {"schema": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FIND = "t__find_it"

Turns = list[Any] | Callable[[Call], Any]


def run_agent(
    turns: Turns,
    *,
    native: bool = True,
    answer: Callable[[Call], Any] = lambda call: {"found": call.request["arguments"]},
    denied: Mapping[str, str] | None = None,
    **agent: Any,
) -> Driver:
    """Run one agent step whose model says these turns one after the other, revisions and repairs included."""

    def reply(call: Call) -> Any:
        if call.kind is CallKind.TOOL:
            return answer(call)
        said = sum(made.kind is CallKind.CHAT for made in world.performed) - 1
        return turns(call) if callable(turns) else turns[said]

    world = World(
        answer=reply,
        models={"m": model(*(["Tools"] if native else []))},
        tools={"t": tool(SEARCH, {"name": "write"}, {"name": "hidden"})},
        denied=denied or {},
    )
    definition = {
        "model": "m",
        "prompt": "Do it.",
        "tools": [{"tool": "t", "functions": ["find.it", "write"]}],
        **agent,
    }
    return drive(plan_of([{"name": "a", "agent": definition}]), world)


def chats(driver: Driver) -> list[Mapping[str, Any]]:
    return [call.request for call in driver.world.performed if call.kind is CallKind.CHAT]


def tool_calls(driver: Driver) -> list[tuple[str, str, Any]]:
    return [
        (str(call.id.index), call.function, call.request["arguments"])
        for call in driver.world.performed
        if call.kind is CallKind.TOOL
    ]


def find(q: str) -> tuple[str, str]:
    return FIND, json.dumps({"q": q})


def call_json(name: str, arguments: Any) -> dict[str, Any]:
    return chat(json.dumps({"call": name, "arguments": arguments}))


def failure(driver: Driver) -> tuple[str, str]:
    failed = step(driver.state, "a").error
    assert failed is not None
    return failed.error_class, failed.reason


def test_a_model_is_offered_the_contract_s_functions_and_no_others() -> None:
    driver = run_agent([chat("done")])
    offered = chats(driver)[0]["tools"]
    assert [(one["name"], one["description"]) for one in offered] == [(FIND, "Finds things."), ("t__write", "")]
    assert offered[0]["schema"] == SEARCH["input"]["schema"]
    assert step(driver.state, "a").output == {"text": "done"}


def test_the_calls_of_a_turn_run_in_parallel_and_come_back_in_the_model_s_order() -> None:
    driver = run_agent([chat("", find("x"), find("y")), chat("done")])
    assert tool_calls(driver) == [("0.1.0", "find.it", {"q": "x"}), ("0.2.0", "find.it", {"q": "y"})]
    said, *results = chats(driver)[1]["messages"][1:]
    assert said == {"role": "assistant", "content": "", "tool_calls": chat("", find("x"), find("y"))["toolCalls"]}
    assert results == [
        {"role": "tool", "tool_call_id": "c0", "content": '{"found":{"q":"x"}}'},
        {"role": "tool", "tool_call_id": "c1", "content": '{"found":{"q":"y"}}'},
    ]
    kinds = [entry.kind.value for entry in driver.journal.entries if "0.1.0" in str(entry.data.get("index", ""))]
    assert kinds == ["CallIntent", "CallOutcome"]


def test_what_counts_is_the_presence_of_tool_calls() -> None:
    driver = run_agent([chat("I am done!", find("x")), chat("done")])
    assert step(driver.state, "a").output == {"text": "done"}


@pytest.mark.requirement("A28")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "no JSON object"),
        ("[1]", "no JSON object"),
        ("{}", "q"),
        ('{"q": 1}', "/q"),
        ('{"q": "a", "q": "b"}', "no JSON object"),
        ('{"q": NaN}', "no JSON object"),
        ('\ufeff{"q": "a"}', "no JSON object"),
        ("[" * 100_000, "no JSON object"),
        ('{"q": 1e999}', "no JSON object"),
        ('{"q": 123456789012345678901234567890}', "no JSON object"),
        ('{"q": "\\ud800"}', "no JSON object"),
    ],
    ids=[
        "half",
        "a list",
        "nothing",
        "a number",
        "a key twice",
        "NaN",
        "a byte order mark",
        "too deep",
        "infinity",
        "65 bits",
        "half a character",
    ],
)
def test_wrong_arguments_go_back_to_the_model(arguments: str, said: str) -> None:
    driver = run_agent([chat("", (FIND, arguments)), chat("", find("x")), chat("done")], maxTurns=2)
    assert said in chats(driver)[1]["messages"][-1]["content"]
    assert tool_calls(driver) == [("0.1.1", "find.it", {"q": "x"})]
    assert step(driver.state, "a").output == {"text": "done"}


def test_repairs_are_bounded() -> None:
    driver = run_agent(lambda call: chat("", (FIND, "{")))
    assert failure(driver) == ("ModelError", "BadArguments")
    assert len(chats(driver)) == 4


def test_a_good_call_beside_a_bad_one_is_made_once() -> None:
    driver = run_agent([chat("", find("x"), (FIND, "{")), chat("done")])
    assert tool_calls(driver) == [("0.1.0", "find.it", {"q": "x"})]
    assert [message["role"] for message in chats(driver)[1]["messages"][-2:]] == ["tool", "tool"]


def test_a_model_that_asks_for_a_thousand_calls_gets_some_and_is_told() -> None:
    driver = run_agent([chat("", *(find(str(n)) for n in range(1000))), chat("done")])
    assert len(tool_calls(driver)) == 32
    assert "at most 32" in chats(driver)[1]["messages"][-1]["content"]


@pytest.mark.parametrize("name", ["t__hidden", "other__thing", "nothing"])
def test_what_is_not_offered_is_denied_and_the_model_learns_nothing(name: str) -> None:
    driver = run_agent([chat("", (name, "{}")), chat("done")])
    assert driver.state.denials == 1
    assert tool_calls(driver) == []
    assert chats(driver)[1]["messages"][-1]["content"] == "not permitted"


def test_a_missing_grant_is_told_as_not_permitted() -> None:
    driver = run_agent([chat("", find("x")), chat("done")], denied={"t.find.it": "Forbidden"})
    assert chats(driver)[1]["messages"][-1]["content"] == "not permitted"


@pytest.mark.parametrize(
    ("reason", "failed"),
    [("BudgetExceeded", "BudgetExceeded"), ("LoopDetected", "Denied"), ("AuthorizerUnavailable", "Unavailable")],
)
def test_a_denial_that_no_model_can_mend_ends_the_attempt(reason: str, failed: str) -> None:
    driver = run_agent([chat("", find("x"))], denied={"t.find.it": reason})
    assert failure(driver) == (failed, reason)


def test_the_third_identical_call_is_a_loop() -> None:
    driver = run_agent(lambda call: chat("", find("same")))
    assert failure(driver) == ("Denied", "LoopDetected")
    assert len(tool_calls(driver)) == 2
    assert driver.state.terminal is not None
    assert driver.state.terminal.reason == "LoopDetected"


def test_a_tool_s_error_is_told_in_short() -> None:
    driver = run_agent([chat("", find("x")), chat("done")], answer=lambda call: error("ToolError"))
    assert chats(driver)[1]["messages"][-1]["content"] == "error: ToolError: it went wrong"


@pytest.mark.requirement("G3")
def test_an_unknown_outcome_is_not_left_to_the_model() -> None:
    driver = run_agent([chat("", find("x")), chat("done")], answer=lambda call: error("OutcomeUnknown"))
    assert failure(driver) == ("OutcomeUnknown", "OutcomeUnknown")
    assert len(chats(driver)) == 1


@pytest.mark.parametrize("native", [True, False])
def test_the_last_turn_can_only_answer(native: bool) -> None:
    turns = (
        [chat("", find("x")), chat("done")]
        if native
        else [call_json(FIND, {"q": "x"}), chat('{"final": {"text": "done"}}')]
    )
    driver = run_agent(turns, native=native, maxTurns=2)
    last = chats(driver)[-1]
    assert "tools" not in last
    assert "anyOf" not in last.get("schema", {})
    assert step(driver.state, "a").output == {"text": "done"}


@pytest.mark.parametrize("native", [True, False])
def test_turns_are_bounded(native: bool) -> None:
    numbers = iter(range(100))

    def turn(call: Call) -> Any:
        q = str(next(numbers))
        return chat("", find(q)) if native else call_json(FIND, {"q": q})

    driver = run_agent(turn, native=native, maxTurns=4)
    assert failure(driver) == ("ModelError", "TurnsExhausted")
    assert (len(chats(driver)), len(tool_calls(driver))) == (4, 3)


@pytest.mark.parametrize("native", [True, False])
def test_a_rejected_answer_is_corrected_in_the_same_conversation(native: bool) -> None:
    answers = ['{"n": "x"}', '{"n": 1}']
    turns = [chat(text if native else f'{{"final": {text}}}') for text in answers]
    driver = run_agent(turns, native=native, output={"schema": SCHEMA, "revisions": 1})
    assert step(driver.state, "a").output == {"n": 1}
    said, asked = chats(driver)[1]["messages"][-2:]
    assert (said["role"], asked["role"]) == ("assistant", "user")
    assert "/n" in asked["content"]


def test_a_rejected_answer_without_revisions_fails() -> None:
    driver = run_agent([chat('{"n": "secret"}')], output={"schema": SCHEMA})
    assert failure(driver) == ("ModelError", "OutputRejected")
    assert driver.state.terminal is not None
    assert "secret" not in driver.state.terminal.message


def test_a_schema_constrains_a_native_model_only_when_no_tools_are_offered() -> None:
    driver = run_agent([chat("", find("x")), chat('{"n": 1}')], output={"schema": SCHEMA}, maxTurns=2)
    first, last = chats(driver)
    assert "schema" not in first
    assert '"integer"' in first["messages"][0]["content"]
    assert last["schema"] == SCHEMA


# Constrained JSON, for a model without tools.


def test_a_model_without_tools_replies_in_constrained_json() -> None:
    driver = run_agent(
        [call_json(FIND, {"q": "x"}), chat('{"final": {"text": "done"}}')], native=False, instructions="Be good."
    )
    first, last = chats(driver)
    assert "tools" not in first
    assert [list(way["properties"]) for way in first["schema"]["anyOf"]] == [
        ["call", "arguments"],
        ["call", "arguments"],
        ["final"],
    ]
    assert first["messages"][0]["content"].startswith("Be good.")
    assert FIND in first["messages"][0]["content"]
    assert last["messages"][-1] == {"role": "user", "content": f'Result of {FIND}:\n{{"found":{{"q":"x"}}}}'}
    assert step(driver.state, "a").output == {"text": "done"}


@pytest.mark.requirement("A28")
@pytest.mark.parametrize(
    "reply",
    ["hello", "[]", "{}", '{"call": 1}', f'{{"call": "{FIND}", "arguments": {{"to": "safe", "to": "evil"}}}}'],
)
def test_a_constrained_reply_of_another_form_is_repaired(reply: str) -> None:
    driver = run_agent([chat(reply), chat('{"final": {"text": "done"}}')], native=False, maxTurns=1)
    assert "Reply again" in chats(driver)[1]["messages"][-1]["content"]
    assert step(driver.state, "a").output == {"text": "done"}


def test_constrained_replies_that_are_never_understood_fail() -> None:
    driver = run_agent(lambda call: chat("hello"), native=False)
    assert failure(driver) == ("ModelError", "BadAnswer")


def test_the_schemas_of_a_constrained_reply_keep_their_references() -> None:
    answer = {"$ref": "#/$defs/number", "$defs": {"number": {"type": "object", "properties": {"$ref": {}}}}}
    driver = run_agent(
        [call_json(FIND, {"q": "x"}), chat('{"final": {}}')], native=False, maxTurns=2, output={"schema": answer}
    )
    first, last = (request["schema"] for request in chats(driver))
    assert first["anyOf"][2]["properties"]["final"]["$ref"] == "#/anyOf/2/properties/final/$defs/number"
    assert last["properties"]["final"]["$ref"] == "#/properties/final/$defs/number"
    for schema in (first, last):
        assert findings(schema, {"final": {}}) == []
        assert findings(schema, {"final": 1}) != []
    assert findings(first, {"call": FIND, "arguments": {}}) != []


@pytest.mark.requirement("G1")
def test_a_new_attempt_begins_the_conversation_anew_with_the_same_offer() -> None:
    replies = iter([error("Unavailable"), chat("done")])
    world = World(answer=lambda call: next(replies), models={"m": model("Tools")}, tools={"t": tool(SEARCH)})
    definition = {"model": "m", "prompt": "Do it.", "tools": [{"tool": "t"}]}
    driver = drive(plan_of([{"name": "a", "agent": definition, "retry": {"limit": 1}}]), world)
    first, second = chats(driver)
    assert first == second
    assert step(driver.state, "a").attempt == 2


SEND = {"name": "send", "effect": "Irreversible"}
KEYED = SEND | {"idempotency": {"header": "Idempotency-Key"}}


def broken_off(function: dict[str, Any], *asked: dict[str, Any]) -> Driver:
    """Drive an agent whose model is away once after the first call that it asked for, and may be tried again."""
    first, *others = [chat("", ("t__send", json.dumps(arguments))) for arguments in asked]
    replies = iter([first, error("Unavailable"), *others, chat("done")])

    def answer(call: Call) -> Any:
        return {"text": "sent"} if call.kind is CallKind.TOOL else next(replies)

    world = World(answer=answer, models={"m": model("Tools")}, tools={"t": tool(function)})
    definition = {"model": "m", "prompt": "Do it.", "tools": [{"tool": "t"}]}
    return drive(plan_of([{"name": "a", "agent": definition, "retry": {"limit": 1}}]), world)


@pytest.mark.requirement("G2", "G3")
def test_an_agent_that_did_what_may_not_be_repeated_is_not_tried_again() -> None:
    driver = broken_off(SEND, {"to": "alice"}, {"to": "alice"})
    assert [call.request["arguments"] for call in driver.world.performed if call.kind is CallKind.TOOL] == [
        {"to": "alice"}
    ]
    assert failure(driver) == ("OutcomeUnknown", "Unavailable")


@pytest.mark.requirement("G2")
@pytest.mark.parametrize(("again", "same"), [({"to": "alice"}, True), ({"to": "bob"}, False)])
def test_what_an_agent_asks_for_again_has_the_key_of_the_first_time_and_nothing_else_has(
    again: dict[str, Any], same: bool
) -> None:
    driver = broken_off(KEYED, {"to": "alice"}, again)
    keys = [call.idempotency_key(RunUid("u")) for call in driver.world.performed if call.kind is CallKind.TOOL]
    assert step(driver.state, "a").phase == "Succeeded"
    assert (len(keys), len(set(keys))) == (2, 1 if same else 2)


def test_two_equal_calls_of_one_turn_are_two_effects() -> None:
    twice = ("t__send", json.dumps({"to": "alice"}))
    replies = iter([chat("", twice, twice), chat("done")])

    def answer(call: Call) -> Any:
        return {"text": "sent"} if call.kind is CallKind.TOOL else next(replies)

    world = World(answer=answer, models={"m": model("Tools")}, tools={"t": tool(KEYED)})
    drive(plan_of([{"name": "a", "agent": {"model": "m", "prompt": "Do it.", "tools": [{"tool": "t"}]}}]), world)
    assert len({call.idempotency_key(RunUid("u")) for call in world.performed if call.kind is CallKind.TOOL}) == 2


def long_search(room: int | None, turns: int) -> Driver:
    """Drive an agent that asks for long results, one a turn, with a Model that has room for so many tokens."""
    limits = {"contextTokens": room, "maxOutputTokens": 16} if room is not None else {"maxOutputTokens": 16}
    asks = [chat("", find(str(number))) for number in range(turns)]
    replies = iter([*asks, chat("done")])

    def answer(call: Call) -> Any:
        return {"text": "x" * 900} if call.kind is CallKind.TOOL else next(replies)

    spec = model("Tools").spec.model_copy(update={"limits": ModelLimits.model_validate(limits)})
    small = model("Tools").model_copy(update={"spec": spec})
    world = World(answer=answer, models={"m": small}, tools={"t": tool(SEARCH)})
    definition = {"model": "m", "prompt": "Do it.", "tools": [{"tool": "t"}], "maxTurns": 40}
    return drive(plan_of([{"name": "a", "agent": definition}]), world)


def test_a_conversation_leaves_old_results_out_before_its_model_has_no_room() -> None:
    whole, short = long_search(None, 9), long_search(1024, 9)
    (*_, everything), (*before, last) = chats(whole), chats(short)
    assert len(canonical_json(everything["messages"])) > (1024 - 16) * BYTES_PER_TOKEN
    assert all(len(canonical_json(one["messages"])) <= (1024 - 16) * BYTES_PER_TOKEN for one in [*before, last])
    told = [one["content"] for one in last["messages"] if one["role"] == "tool"]
    assert LEFT_OUT in told and told[0] == LEFT_OUT and told[-1] != LEFT_OUT
    assert last["messages"][0] == everything["messages"][0]
    assert step(short.state, "a").phase == "Succeeded"


def test_turns_are_left_out_where_their_results_are_not_enough_and_every_answer_keeps_its_question() -> None:
    (*_, last) = chats(long_search(1024, 30))
    assert any(one["content"] == TURNS_LEFT_OUT for one in last["messages"])
    asked = [call["id"] for one in last["messages"] for call in one.get("tool_calls", ())]
    assert asked == [one["tool_call_id"] for one in last["messages"] if one["role"] == "tool"]
