"""Workflows of all kinds of steps, drawn by hypothesis, and a world whose answers derive from the call alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from tests.unit.flow.world import World, chat, error, model, plan_of, tool, workflow_named

from fairlead.api.reasons import DecidedReason
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.plan import Plan
from fairlead.flow.runstate import ApprovalState

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 3}, "word": {"enum": ["yes", "no"]}},
    "required": ["n", "word"],
    "additionalProperties": False,
}
ARGUMENTS = {"type": "object", "properties": {"q": {"type": "integer"}}, "required": ["q"]}
FUNCTIONS = {
    "read": {"effect": "Read", "returns": {"trust": "Untrusted", "sensitivity": "Public"}},
    "write": {"effect": "Irreversible"},
    "keyed": {"effect": "Reversible", "idempotency": {"header": "Idempotency-Key"}},
}
ERRORS = ("Unavailable", "RateLimited", "Timeout", "ToolError", "ModelError", "Invalid")
MODELS = {
    "native": model("Tools"),
    "plain": model(),
    "embedder": model(api="OpenAIEmbeddings"),
}

SIGNAL = "go"

Draw = st.DrawFn


def world(seed: int, *, errors_percent: int, untrusted: int = 0) -> World:
    """Return a world of this seed in which so many calls of a hundred fail.

    What the function `read` answers comes from somebody outside, who has a seed of their own.
    """

    def dice(call: Call, sides: int, throw: str = "") -> int:
        return _dice(f"{seed}|{call.id.path}|{call.id.attempt}|{call.id.index}|{throw}", sides)

    def answer(call: Call) -> Any:
        if dice(call, 100, "fails") < errors_percent:
            return error(ERRORS[dice(call, len(ERRORS), "how")])
        match call.kind:
            case CallKind.EMBED:
                return {"vectors": [[_dice(text, 7) - 3, 1] for text in call.request["texts"]]}
            case CallKind.WORKFLOW:
                return {"n": dice(call, 4), "of": call.target}
            case CallKind.TOOL:
                said = f"by {untrusted}" if call.function == "read" else ""
                return {"n": dice(call, 4, said), "of": call.function}
            case CallKind.CONTAINER:
                return {"output": {"n": dice(call, 4, f"leaves {call.request.get('heard')}")}, "logs": ""}
            case CallKind.CHAT:
                tools = call.request.get("tools")
                if tools and dice(call, 3, "asks"):
                    return chat("", *(_asked(call, tools, dice, n) for n in range(1 + dice(call, 3, "many"))))
                if dice(call, 10, "babbles") == 0:
                    return chat("hm")
                schema = call.request.get("schema", SCHEMA)
                return chat(json.dumps(_instance(schema, f"{seed}{call.id}{dice(call, 99, 'instance')}")))

    def people(approval: ApprovalState) -> DecidedReason | None:
        words = (DecidedReason.APPROVED, DecidedReason.DENIED, None)
        return words[_dice(f"{seed}|{approval.name}", len(words))]

    functions = [{"name": name, "input": {"schema": ARGUMENTS}, **more} for name, more in FUNCTIONS.items()]
    helper = workflow_named("helper", input={"schema": ARGUMENTS})
    declared = {"models": MODELS, "tools": {"t": tool(*functions)}, "workflows": {"helper": helper}}
    return World(answer=answer, people=people, **declared)


def _asked(call: Call, tools: list[dict[str, Any]], dice: Any, n: int) -> tuple[str, str]:
    names = [*(offered["name"] for offered in tools), "t__secret"]
    arguments = ['{"q": 1}', f'{{"q": {dice(call, 9, f"q{n}")}}}', "{", '{"q": "x"}'][dice(call, 4, f"arguments{n}")]
    return names[dice(call, len(names), f"name{n}")], arguments


def _instance(schema: Mapping[str, Any], seed: str) -> Any:
    if "anyOf" in schema:
        return _instance(schema["anyOf"][_dice(seed, len(schema["anyOf"]))], seed + "a")
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][_dice(seed, len(schema["enum"]))]
    match schema.get("type"):
        case "object":
            return {name: _instance(below, seed + name) for name, below in schema.get("properties", {}).items()}
        case "integer":
            return _dice(seed, 1 + schema.get("maximum", 9))
        case _:
            return f"text {_dice(seed, 99)}"


def _dice(seed: str, sides: int) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]) % sides


@st.composite
def specs(draw: Draw, *, functions: tuple[str, ...] = tuple(FUNCTIONS), cleaning: bool = True) -> dict[str, Any]:
    """Draw a workflow: blocks that use the blocks before them, loops, branches, retries, handlers and a `finally`."""
    blocks: list[dict[str, Any]] = []
    for name in ("inner", "outer"):
        blocks.append({"name": name, **draw(bodies(tuple(b["name"] for b in blocks), functions, most=3))})
    main = draw(bodies(("inner", "outer"), functions, most=4))
    if cleaning and draw(st.integers(0, 3)) == 0:
        main["finally"] = draw(st.sampled_from(["inner", "outer"]))
    return {"blocks": blocks, "limits": {"steps": 120}, **main}


def plans(*, functions: tuple[str, ...] = tuple(FUNCTIONS), cleaning: bool = True) -> st.SearchStrategy[Plan]:
    """Draw a workflow, ready to run."""
    return specs(functions=functions, cleaning=cleaning).map(lambda spec: plan_of(**spec))


@st.composite
def bodies(draw: Draw, blocks: tuple[str, ...], functions: tuple[str, ...], *, most: int) -> dict[str, Any]:
    """Draw a list of steps, in order or as a graph."""
    order = draw(st.sampled_from(["Sequence", "Graph"]))
    steps: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, most))):
        before = [step["name"] for step in steps]
        step = {"name": f"s{number}", **draw(kinds(blocks, functions, before)), **draw(modifiers(blocks, before))}
        if "wait" in step or "approval" in step:
            step.pop("retry", None)
        if order == "Graph" and before:
            step["needs"] = draw(st.lists(st.sampled_from(before), unique=True, max_size=2))
            step["join"] = draw(st.sampled_from(["All", "Any", "AllDone"]))
            if not step["needs"]:
                del step["needs"], step["join"]
        steps.append(step)
    return {"steps": steps, "order": order}


@st.composite
def kinds(draw: Draw, blocks: tuple[str, ...], functions: tuple[str, ...], before: list[str]) -> dict[str, Any]:
    """Draw one kind of step with its definition; values read the input and the steps before."""
    seen = "".join(f" $( toJson(steps.{name}.output) )" for name in before[-1:])
    tools = [{"tool": "t", "functions": list(functions)}, {"workflow": "helper"}]
    contract = {"schema": SCHEMA, "rules": [{"expression": "output.n > 0", "message": "n is too small"}]}
    for name in before[-1:]:
        contract["rules"] += [{"expression": f"!toJson(steps.{name}.output).contains('1')", "message": "a one"}]
    contract |= {"revisions": draw(st.integers(0, 2))}
    if draw(st.booleans()):
        contract |= {"judge": {"model": "plain", "criteria": "good?", "minScorePercent": 5}}
    choices = [{"name": "one", "when": "input.n == 1"}, {"name": "two", "description": "zwei"}]
    choices += [{"name": block, "description": block, "block": block} for block in blocks]
    model = draw(st.sampled_from(["native", "plain"]))
    on_failure = draw(st.sampled_from([{"action": "Fail"}, {"action": "Continue"}, *({"block": b} for b in blocks)]))
    ways: list[dict[str, Any]] = [
        {"tool": {"tool": "t", "function": function, "arguments": {"q": "$( input.n )"}}} for function in functions
    ]
    ways += [
        {"workflow": {"workflow": "helper", "input": {"q": "$( input.n )"}}},
        {"container": {"image": "i@sha256:" + "0" * 64, "input": {"q": f"$( input.n ){seen}"}}},
        {
            "container": {
                "image": "i@sha256:" + "0" * 64,
                "input": {"q": f"$( input.n ){seen}"},
                "tools": [
                    {"tool": "t", "functions": draw(st.lists(st.sampled_from(functions), max_size=2, unique=True))}
                ],
            }
        },
        {"transform": {"value": f"$( input.n ){seen}"}},
        {"generate": {"model": model, "prompt": f"say{seen}", "output": contract}},
        {"agent": {"model": model, "prompt": f"do{seen}", "tools": tools, "maxTurns": 3, "output": contract}},
        {"route": {"value": f"x{seen}", "choices": choices, "model": "embedder", "otherwise": "two"}},
        {"route": {"value": "x", "choices": choices, "model": "plain", "otherwise": "two"}},
        {"validate": {"value": {"n": "$( input.n )", "word": "yes"}, "onFailure": on_failure, **_checks(contract)}},
    ]
    on_timeout = draw(st.sampled_from(["Fail", "Continue"]))
    ways += [
        {"wait": {"seconds": 5}},
        {"wait": {"until": "$( run.createdAt )"}},
        {"wait": {"signal": {"name": SIGNAL, "schema": SCHEMA}, "timeoutSeconds": 9, "onTimeout": on_timeout}},
    ]
    on_denied = draw(st.sampled_from(["Fail", "Continue"]))
    terms = {"from": {"groups": ["oncall"]}, "requester": "Allowed", "expiresAfterSeconds": 7, "onDenied": on_denied}
    ways += [{"approval": {"message": "may it be?", **terms}}]
    notice = {"tool": "t", "function": draw(st.sampled_from(functions))}
    notice |= {"arguments": {"q": "$( input.n )", "text": f"$( approval.name ){seen}"}}
    ways += [{"approval": {"message": "may it be?", **terms, "notify": notice}}]
    ways += [{"block": block} for block in blocks]
    if blocks:
        ways.append({"parallel": {"blocks": [*blocks], "join": draw(st.sampled_from(joins(len(blocks))))}})
    return draw(st.sampled_from(ways))


def joins(blocks: int) -> list[dict[str, Any]]:
    """Return every join that so many blocks can have."""
    return [{"mode": "All"}, {"mode": "Any"}, *({"succeeded": number} for number in range(1, blocks + 1))]


def _checks(contract: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in contract.items() if key != "revisions"}


@st.composite
def modifiers(draw: Draw, blocks: tuple[str, ...], before: list[str]) -> dict[str, Any]:
    """Draw what holds for any step: when, retry, onError, a loop. Most steps have few of them."""
    found: dict[str, Any] = {}
    if draw(st.integers(0, 4)) == 0:
        whens = ["input.n > 1", "input.missing", *(f"steps.{name}.phase != 'Failed'" for name in before)]
        found["when"] = draw(st.sampled_from(whens))
    if draw(st.integers(0, 1)) == 0:
        found["retry"] = {
            "limit": draw(st.integers(0, 2)),
            "errorClasses": ["Unavailable", "Timeout", "ToolError", "ModelError"],
        }
    if draw(st.integers(0, 2)) == 0:
        found["onError"] = draw(st.sampled_from([{"action": "Continue"}, *({"block": block} for block in blocks)]))
    match draw(st.integers(0, 9)):
        case 0 | 1:
            found["repeat"] = {
                "until": draw(st.sampled_from(["iteration == 2", "output != null && previous != null", "false"])),
                "maxIterations": 3,
                "onExhausted": draw(st.sampled_from(["Fail", "Continue"])),
            }
        case 2 | 3:
            found["forEach"] = {
                "items": draw(st.sampled_from([[1, 2, 3], [], "$( [input.n, 2] )", "$( input.n )"])),
                "maxParallel": draw(st.integers(1, 3)),
                "onItemFailure": draw(st.sampled_from(["Fail", "Continue"])),
            }
            if draw(st.booleans()):
                limited = st.sampled_from(["modelCalls", "toolCalls", "tokens", "steps"])
                found["limits"] = draw(st.dictionaries(limited, st.integers(1, 9), min_size=1, max_size=2))
    return found
