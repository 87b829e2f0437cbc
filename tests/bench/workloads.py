"""What is run: Workflows of trivial steps, as manifests that local mode and a cluster both take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.e2e.installation import SERVERS_IMAGE

Manifest = dict[str, Any]

ACCOUNT = "bench"
TOOL = "bench"
MODEL = "instant"
FUNCTIONS = ("read", "wait")
MOST_ITERATIONS = 1000
BIG = {"steps": 100_000, "toolCalls": 100_000, "modelCalls": 100_000}

RETRY = {"limit": 5, "backoffSeconds": 1}
"""A machine that is too busy to answer a probe in time makes an outlier, not the end of the measurement."""


def chain(name: str, steps: int) -> Manifest:
    """Return a Workflow of call steps, one after the other."""
    return _workflow(name, [{"name": f"s{number}", "tool": _call("read")} for number in range(steps)])


def loop(name: str, iterations: int, function: str = "read") -> Manifest:
    """Return a Workflow that makes the same call many times: a chain as long as one wants."""
    rounds = [min(MOST_ITERATIONS, iterations - begun) for begun in range(0, iterations, MOST_ITERATIONS)]
    steps = []
    for number, most in enumerate(rounds):
        again = {"until": f"iteration >= {most}", "maxIterations": most}
        steps.append({"name": f"again{number}", "repeat": again, "tool": _call(function)})
    return _workflow(name, steps)


def for_each(name: str, items: int) -> Manifest:
    """Return a Workflow that makes a call for each of many items."""
    each = {"items": list(range(items)), "as": "n", "maxParallel": 32}
    return _workflow(name, [{"name": "each", "forEach": each, "tool": _call("read")}])


def waiting(name: str) -> Manifest:
    """Return a Workflow whose runs wait for a signal that never comes."""
    return _workflow(name, [{"name": "ask", "wait": {"signal": {"name": "never"}}}])


def parent(name: str, child: str) -> Manifest:
    """Return a Workflow whose runs wait for a child run."""
    return _workflow(name, [{"name": "ask", "workflow": {"workflow": child}}])


def approval(name: str) -> Manifest:
    """Return a Workflow whose runs wait for people."""
    asked = {"message": "May it be?", "from": {"groups": ["oncall"]}, "requester": "Allowed"}
    return _workflow(name, [{"name": "ask", "approval": asked}])


def asking(name: str) -> Manifest:
    """Return a Workflow of one model call."""
    return _workflow(name, [{"name": "ask", "generate": {"model": MODEL, "prompt": "$( input.key )"}}])


def container(name: str, *, calls: bool) -> Manifest:
    """Return a Workflow of one container, whose output is when its program began, in Unix seconds."""
    source = "import json, time; json.dump(time.time(), open('/work/output.json', 'w'))"
    tools = {"tools": [{"tool": TOOL, "functions": list(FUNCTIONS)}]} if calls else {}
    spec = {"image": SERVERS_IMAGE, "script": {"command": ["python3"], "source": source}, **tools}
    return _workflow(name, [{"name": "work", "container": spec}])


def engine() -> Manifest:
    """Return the Engine; the image of the containers has no digest."""
    return _object("Engine", "default", {"security": {"imageTags": "Allowed"}})


def tool(mcp: Mapping[str, Any]) -> Manifest:
    """Return the Tool that the Workflows call; `mcp` says where it is."""
    functions = [{"name": function, "effect": "Read"} for function in FUNCTIONS]
    return _object("Tool", TOOL, {"mcp": dict(mcp), "functions": functions})


def model(where: Mapping[str, Any]) -> Manifest:
    """Return the Model that is asked; `where` holds `endpoint` or `server`."""
    return _object("Model", MODEL, dict(where))


def policy(*workflows: str) -> Manifest:
    """Return the Policy that lets the account do all this, and start runs of these Workflows."""
    tools = [{"tool": TOOL, "functions": list(FUNCTIONS)}]
    granted = {"serviceAccounts": [ACCOUNT], "models": [MODEL], "tools": tools, "images": [SERVERS_IMAGE]}
    granted |= {"workflows": list(workflows)} if workflows else {}
    return _object("Policy", ACCOUNT, {"grants": granted})


def ruling(name: str, *, tool: str = TOOL, argument: str = "key") -> Manifest:
    """Return a Policy that binds every run: two rules about the calls of a tool, a budget and a rule for data."""
    short = {"name": "short", "when": f"call.tool == '{tool}' && size(call.arguments.{argument}) > 400"}
    rules = {
        "calls": [short],
        "limits": [{"tool": tool, "callsPerRun": 1000}],
        "budgets": {"run": {"toolCalls": 1000}},
        "dataFlow": {"untrustedToExternal": "Deny"},
    }
    return _object("Policy", name, {"rules": rules})


def run(workflow: str, name: str) -> Manifest:
    """Return a WorkflowRun."""
    return _object("WorkflowRun", name, {"workflow": workflow, "input": {"key": "k"}})


def _call(function: str) -> Manifest:
    return {"tool": TOOL, "function": function, "arguments": {"key": "$( input.key )"}}


def _workflow(name: str, steps: list[Manifest]) -> Manifest:
    defaults = {"retry": RETRY}
    return _object(
        "Workflow", name, {"serviceAccountName": ACCOUNT, "limits": BIG, "defaults": defaults, "steps": steps}
    )


def _object(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}
