"""The kitchen sink: a Workflow with every kind of step; its people never answer. A ledger counts effects by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.e2e.installation import SERVERS_IMAGE, until
from tests.e2e.kubectl import Kubectl
from tests.e2e.scenes import ACCOUNT, Manifest, becomes, engine, ledger_tool, manifest, play, scripted_model, workflow

NAME, CHILD, DO = "kitchen-sink", "errand", "do"
ITEMS, ROUNDS = 4, 3
COUNTS = """
import json, os, time, urllib.request
given = json.load(open("/work/input.json"))
def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request))
said = post(os.environ["OPENAI_BASE_URL"] + "/chat/completions",
    {"model": "scripted", "messages": [{"role": "user", "content": given["text"]}]})
time.sleep(1)
asked = {"name": "append_keyed", "arguments": {"key": given["key"]}}
done = post(os.environ["FAIRLEAD_MCP_URL"] + "/ledger",
    {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": asked})
assert not done["result"]["isError"], done
json.dump({"letters": len(said["choices"][0]["message"]["content"])}, open("/work/output.json", "w"))
"""
_RUN = {"type": "object", "required": ["run"], "properties": {"run": {"type": "string"}}}
_PATIENT = {"limit": 10, "backoffSeconds": 1, "factor": 1}
_READS = {"limit": 10, "backoffSeconds": 1, "factor": 1, "errorClasses": ["Unavailable", "ToolError", "Timeout"]}
_STUBBORN = _READS | {"limit": 20}
_NOBODY = {"message": "May it go on?", "from": {"users": ["nobody"]}, "requester": "Allowed"}
_NOBODY |= {"expiresAfterSeconds": 5, "onDenied": "Continue"}
_IN_STOCK = {"expression": "output > 0", "message": "sold out"}
FUNCTIONS = ["read", "append", "append_keyed", "slow"]


def effects_of(run: str) -> dict[str, str]:
    """Return what a run that ended well has done, each once: keys, and the paths of the steps; `DO` is the child's."""
    each = {f"each-{number}": f"each[{number}]" for number in range(ITEMS)}
    again = {f"again-{number}": f"again#{number}/do" for number in range(1, ROUNDS + 1)}
    ways = {"topic": "topic/greet", "way": "way/go", "left": "both/left/append", "right": "both/right/slow"}
    order = {"charged": "order/charge", "refunded": "order!/refund"}
    steps = {"first": "first", "keyed": "keyed", "agent": "noted", "inside": "counted", "child": DO, "after": "!/keep"}
    return {f"{run}-{key}": path for key, path in (steps | ways | order | each | again).items()}


def calls_of(runs: Iterable[Manifest]) -> dict[str, tuple[str, str]]:
    """Return by key which step must have made the effect: the UID of its run and its path; `runs` has children too."""
    found, children = {}, {}
    for run in runs:
        name, uid, parent = run["metadata"]["name"], run["metadata"]["uid"], run["spec"].get("parent")
        if parent is not None:
            children[f"{parent['name']}-child"] = (uid, DO)
        else:
            found.update({key: (uid, path) for key, path in effects_of(name).items() if path != DO})
    return found | children


def script(runs: Iterable[str]) -> list[Manifest]:
    """Return what the model says: to the agent of each of these runs what to note, and to whoever asks the way."""
    notes = [
        {
            "when": {"contains": f"note {run}.", "toolResults": 0},
            "toolCalls": [{"name": "ledger__append_keyed", "arguments": {"key": f"{run}-agent"}}],
        }
        for run in runs
    ]
    return [*notes, {"when": {"contains": "which way"}, "content": {"choice": "onwards"}}, {"content": "hello"}]


def _call(name: str, function: str, key: str, **more: Any) -> Manifest:
    arguments = {"key": key} | ({"seconds": 0.5} if function == "slow" else {})
    return {"name": name, "tool": {"tool": "ledger", "function": function, "arguments": arguments}, **more}


def _steps() -> list[Manifest]:
    container = {
        "image": SERVERS_IMAGE,
        "script": {"command": ["python3"], "source": COUNTS},
        "input": {"text": "$( steps.say.output.text )", "key": "$( input.run )-inside"},
        "models": ["scripted"],
        "tools": [{"tool": "ledger", "functions": ["append_keyed"]}],
        "output": {"schema": {"type": "object"}},
        "resources": {"cpu": "100m", "memory": "64Mi"},
    }
    return [
        _call("look", "read", "$( input.run )-first", retry=_READS),
        _call("first", "append", "$( input.run )-first"),
        _call("keyed", "append_keyed", "$( input.run )-keyed", retry=_PATIENT),
        {"name": "say", "generate": {"model": "scripted", "prompt": "Hello"}},
        {
            "name": "topic",
            "route": {
                "value": "$( steps.say.output.text )",
                "choices": [{"name": "greeting", "when": "true", "block": "greeted"}],
            },
        },
        {
            "name": "way",
            "route": {
                "value": "Which way?",
                "model": "scripted",
                "choices": [{"name": "back"}, {"name": "onwards", "block": "onwards"}],
            },
        },
        {
            "name": "noted",
            "agent": {
                "model": "scripted",
                "prompt": "Note $( input.run ).",
                "tools": [{"tool": "ledger", "functions": ["append_keyed"]}],
            },
            "retry": _PATIENT,
        },
        {"name": "order", "block": "order", "onError": {"block": "refund"}},
        {"name": "asked", "approval": _NOBODY},
        {
            "name": "checked",
            "validate": {
                "value": "$( steps.say.output.text )",
                "rules": [{"expression": "output == 'hello'", "message": "be polite"}],
                "onFailure": {"action": "Fail"},
            },
        },
        {"name": "shaped", "transform": {"value": "$( steps.say.output.text + '!' )"}},
        _call("each", "append", "$( input.run )-each-$( item )", forEach={"items": [*range(ITEMS)], "maxParallel": 2}),
        {
            "name": "again",
            "repeat": {"until": f"output >= {ROUNDS}", "maxIterations": ROUNDS},
            "block": "again",
        },
        {"name": "both", "parallel": {"blocks": ["left", "right"]}},
        {"name": "counted", "container": container, "retry": _STUBBORN},
        {"name": "nap", "wait": {"seconds": 1}},
        {"name": "told", "wait": {"signal": {"name": "go"}, "timeoutSeconds": 600}},
        {"name": "child", "workflow": {"workflow": CHILD, "input": {"run": "$( input.run )"}}},
    ]


def _blocks() -> list[Manifest]:
    return [
        {"name": "greeted", "steps": [_call("greet", "append", "$( input.run )-topic")]},
        {"name": "onwards", "steps": [_call("go", "append", "$( input.run )-way")]},
        {
            "name": "order",
            "steps": [
                _call("charge", "append_keyed", "$( input.run )-charged", retry=_PATIENT),
                {"name": "stock", "validate": {"value": 0, "rules": [_IN_STOCK]}},
            ],
        },
        {"name": "refund", "steps": [_call("refund", "append_keyed", "$( input.run )-refunded", retry=_PATIENT)]},
        {
            "name": "again",
            "steps": [
                {"name": "number", "transform": {"value": "$( previous == null ? 1 : previous + 1 )"}},
                _call("do", "append", "$( input.run )-again-$( steps.number.output )"),
            ],
            "output": "$( steps.number.output )",
        },
        {"name": "left", "steps": [_call("append", "append", "$( input.run )-left")]},
        {
            "name": "right",
            "order": "Graph",
            "steps": [
                _call("slow", "slow", "$( input.run )-right"),
                {"name": "beside", "transform": {"value": 1}},
                {"name": "joined", "needs": ["slow", "beside"], "transform": {"value": 2}},
            ],
        },
        {"name": "after", "steps": [_call("keep", "append_keyed", "$( input.run )-after", retry=_PATIENT)]},
    ]


def sink() -> Manifest:
    """Return the Workflow; its runs are kept until they have been judged."""
    more = {"finally": "after", "input": {"schema": _RUN}, "retention": {"succeeded": 5000, "failed": 5000}}
    return workflow(NAME, *_steps(), blocks=_blocks(), **more)


def declare(team: Kubectl, runs: Iterable[str]) -> None:
    """Create everything, and wait until these runs can begin."""
    keyed = ledger_tool()
    for function in keyed["spec"]["functions"]:
        if function["name"] == "append_keyed":
            function["idempotency"] = {"header": "Idempotency-Key"}
    granted = {
        "serviceAccounts": [ACCOUNT],
        "models": ["scripted"],
        "tools": [{"tool": "ledger", "functions": FUNCTIONS}],
        "workflows": [CHILD],
        "images": [SERVERS_IMAGE],
    }
    child = workflow(CHILD, _call(DO, "append", "$( input.run )-child"), input={"schema": _RUN})
    for obj in (
        engine(security={"imageTags": "Allowed"}, resources={"cpu": "100m", "memory": "512Mi"}),
        keyed,
        scripted_model(),
        manifest("Policy", ACCOUNT, {"grants": granted}),
        child,
        sink(),
    ):
        team.create(obj)
    becomes(team, "model", "scripted", "Reachable", timeout_seconds=240)
    becomes(team, "tool", "ledger", "Reachable", timeout_seconds=240)
    play(team, *script(runs))
    for name in (CHILD, NAME):
        becomes(team, "workflow", name, "Authorized")
    until("the engine is ready", lambda: team.get("statefulset", "fairlead-engine")["status"].get("readyReplicas"))


def run_name(number: int) -> str:
    """Return the name of a run of it."""
    return f"sink-{number}"


def run_of(name: str) -> Manifest:
    """Return a run of it; its signal is there before it waits for it."""
    spec = {"workflow": NAME, "input": {"run": name}, "signals": [{"name": "go", "data": {}, "by": "kubernetes-admin"}]}
    return manifest("WorkflowRun", name, spec)
