"""What is wrong, one thing at a time: each row breaks a specimen, and says which words the refusal must hold.

The API server is asked in tests/e2e, and what runs without a cluster in tests/unit: both must refuse.
"""

from __future__ import annotations

from typing import Any

from tests.specimens import REMOVED

GENERATE = {"prompt": "Hello"}
TRANSFORM = {"value": 1}
INPUT_FROM = {"configMap": {"name": "big", "key": "input.json"}}
ENDPOINT = {"api": "OpenAIChat", "url": "http://models.example", "model": "m"}
WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    # what is wrong, kind, changes, words of the answer
    ("no kind in a step", "Workflow", {"spec.steps.4.transform": REMOVED}, "a step has exactly one of generate, agent"),
    ("two kinds in a step", "Workflow", {"spec.steps.4.generate": GENERATE}, "a step has exactly one of generate"),
    (
        "two kinds in a step of a block",
        "Workflow",
        {"spec.blocks.0.steps.1.transform": TRANSFORM},
        "a step has exactly one of generate",
    ),
    ("a dash in a step's name", "Workflow", {"spec.steps.4.name": "a-b"}, "spec.steps[4].name in body should match"),
    ("a step called null", "Workflow", {"spec.steps.4.name": "null"}, "mean something else in expressions"),
    ("a block called in", "Workflow", {"spec.blocks.0.name": "in"}, "mean something else in expressions"),
    ("a choice called true", "Workflow", {"spec.steps.0.route.choices.0.name": "true"}, "mean something else"),
    (
        "two steps of one name",
        "Workflow",
        {"spec.steps.7": {"name": "sum", "transform": TRANSFORM}},
        'spec.steps[7]: Duplicate value: {"name":"sum"}',
    ),
    ("needs in a Sequence", "Workflow", {"spec.steps.5.needs": ["sum"]}, "needs and join are for `order: Graph`"),
    (
        "needs in a block that is a Sequence by default",
        "Workflow",
        {"spec.blocks.0.order": REMOVED},
        "needs and join are for `order: Graph`",
    ),
    ("a step that needs itself", "Workflow", {"spec.blocks.0.steps.2.needs": ["both"]}, "a step cannot need itself"),
    ("join without needs", "Workflow", {"spec.blocks.0.steps.2.needs": REMOVED}, "which is missing"),
    ("otherwise is no choice", "Workflow", {"spec.steps.0.route.otherwise": "none"}, "the name of one of the choices"),
    ("a score without a model", "Workflow", {"spec.steps.0.route.model": REMOVED}, "minScorePercent is a score of"),
    ("action and block at once", "Workflow", {"spec.steps.1.onError.block": "diagnose"}, "exactly one of action"),
    ("prompt and messages", "Workflow", {"spec.steps.5.generate.prompt": "x"}, "exactly one of prompt and messages"),
    ("nothing to validate with", "Workflow", {"spec.steps.3.validate.rules": REMOVED}, "at least one of schema, rules"),
    ("null as a value", "Workflow", {"spec.steps.4.transform.value": None}, "transform.value: Required value"),
    ("a loop without a bound", "Workflow", {"spec.steps.2.repeat.maxIterations": REMOVED}, "maxIterations: Required"),
    ("two loops", "Workflow", {"spec.steps.6.repeat": {"until": "true", "maxIterations": 2}}, "a step has one loop"),
    ("limits without a loop", "Workflow", {"spec.steps.6.forEach": REMOVED}, "limits bound a `forEach`"),
    ("limits without a bound", "Workflow", {"spec.steps.6.limits": {}}, "at least one of modelCalls"),
    ("a loop variable called input", "Workflow", {"spec.steps.6.forEach.as": "input"}, "for the loop variable"),
    ("a loop variable called map", "Workflow", {"spec.steps.6.forEach.as": "map"}, "for the loop variable"),
    ("a loop without items", "Workflow", {"spec.steps.6.forEach.items": REMOVED}, "forEach.items: Required value"),
    ("no item at a time", "Workflow", {"spec.steps.6.forEach.maxParallel": 0}, "greater than or equal to 1"),
    ("too many items at a time", "Workflow", {"spec.steps.6.forEach.maxParallel": 101}, "less than or equal to 100"),
    ("an unknown way to fail", "Workflow", {"spec.steps.6.forEach.onItemFailure": "Skip"}, 'Unsupported value: "Skip"'),
    ("nothing in parallel", "Workflow", {"spec.steps.6.parallel.blocks": []}, "should have at least 1 items"),
    ("a block twice", "Workflow", {"spec.steps.6.parallel.blocks.1": "diagnose"}, "Duplicate value"),
    ("an unknown join", "Workflow", {"spec.steps.6.parallel.join": {"mode": "Most"}}, 'Unsupported value: "Most"'),
    ("two joins", "Workflow", {"spec.steps.6.parallel.join.mode": "All"}, "exactly one of mode (All or Any)"),
    ("a join of more blocks", "Workflow", {"spec.steps.6.parallel.join.succeeded": 2}, "is larger than the number"),
    ("retry of a denial", "Workflow", {"spec.steps.1.retry.errorClasses.0": "Denied"}, 'Unsupported value: "Denied"'),
    ("a number", "Workflow", {"spec.steps.1.agent.parameters.temperature": 0.2}, "must be of type string"),
    ("two waits", "Workflow", {"spec.steps.8.wait.seconds": 1}, "exactly one of seconds, until and signal"),
    ("a wait for nothing", "Workflow", {"spec.steps.8.wait": {}}, "exactly one of seconds, until and signal"),
    ("a time-out of a time", "Workflow", {"spec.steps.8.wait": {"seconds": 1, "timeoutSeconds": 1}}, "how long to"),
    ("what no time-out does", "Workflow", {"spec.steps.8.wait.timeoutSeconds": REMOVED}, "what happens after"),
    ("a wait tried again", "Workflow", {"spec.steps.8.retry": {"limit": 1}}, "is never tried again"),
    ("too deep", "Workflow", {"spec.limits.depth": 21}, "should be less than or equal to 20"),
    ("a child of no Workflow", "Workflow", {"spec.steps.7.workflow.workflow": REMOVED}, "workflow.workflow: Required"),
    ("no steps", "Workflow", {"spec.steps": []}, "spec.steps in body should have at least 1 items"),
    ("an unknown field", "Workflow", {"spec.steps.4.loop": {}}, 'unknown field "spec.steps[4].loop"'),
    ("a status in disguise", "Workflow", {"spec.budget": {"costUSD": "1"}}, 'unknown field "spec.budget"'),
    ("no run at all", "Workflow", {"spec.concurrency.maxRuns": 0}, "should be greater than or equal to 1"),
    ("an unknown word for busy", "Workflow", {"spec.concurrency.whenBusy": "Wait"}, 'Unsupported value: "Wait"'),
    ("six fields of cron", "Workflow", {"spec.triggers.schedules.0.cron": "0 0 2 * * *"}, "cron in body should match"),
    ("no time zone", "Workflow", {"spec.triggers.schedules.0.timeZone": "UTC+1 h"}, "timeZone in body should match"),
    ("schedules without retention", "Workflow", {"spec.retention": REMOVED}, "say in retention which of them stay"),
    ("a retention of nothing", "Workflow", {"spec.retention": {}}, "at least one of ttlSecondsAfterFinished"),
    ("a long name", "Workflow", {"metadata.name": "x" * 41}, "a name has at most 40 characters and no dots"),
    ("a dot in a name", "Tool", {"metadata.name": "a.b"}, "a name has at most 40 characters and no dots"),
    ("a long name of a run", "WorkflowRun", {"metadata.name": "x" * 64}, "a name has at most 63 characters"),
    ("two inputs", "WorkflowRun", {"spec.inputFrom": INPUT_FROM}, "at most one of input and inputFrom"),
    ("an input from nowhere", "WorkflowRun", {"spec.input": REMOVED, "spec.inputFrom": {}}, "configMap: Required"),
    ("an unknown state", "WorkflowRun", {"spec.desiredState": "Stopped"}, 'Unsupported value: "Stopped"'),
    ("a signal by nobody", "WorkflowRun", {"spec.signals.0.by": REMOVED}, "spec.signals[0].by: Required value"),
    ("a run without a workflow", "WorkflowRun", {"spec.workflow": REMOVED}, "spec.workflow: Required value"),
    ("url and server", "Tool", {"spec.mcp.server": {"image": "x"}}, "set exactly one of url and server"),
    ("neither url nor server", "Tool", {"spec.mcp.url": REMOVED}, "set exactly one of url and server"),
    ("a password in a URL", "Tool", {"spec.mcp.url": "https://me:pw@x.example"}, "a URL holds no user or password"),
    ("a file as URL", "Tool", {"spec.mcp.url": "file:///etc/passwd"}, "spec.mcp.url in body should match"),
    ("an unknown effect", "Tool", {"spec.functions.0.effect": "Write"}, 'Unsupported value: "Write"'),
    ("two keys", "Tool", {"spec.functions.1.idempotency.argument": "key"}, "exactly one of header and argument"),
    ("the hosts as credential", "Tool", {"spec.credential.secretRef.key": "allowed-hosts"}, "is no credential"),
    ("endpoint and server", "Model", {"spec.endpoint": ENDPOINT}, "exactly one of endpoint and server"),
    ("a price", "Model", {"spec.price": {"inputUSDPerMTok": "1"}}, 'unknown field "spec.price"'),
    ("a port of root", "Model", {"spec.server.port": 80}, "should be greater than or equal to 1024"),
    ("a second Engine", "Engine", {"metadata.name": "second"}, "a namespace has one Engine, and its name is default"),
    ("a private host without port", "Engine", {"spec.security.allowedPrivateHosts.0": "10.0.0.7"}, "should match"),
    ("isolation by half", "Engine", {"spec.security.requireNetworkIsolation": "Maybe"}, "Unsupported value"),
    ("grants to nobody", "Policy", {"spec.grants.serviceAccounts": []}, "should have at least 1 items"),
    ("an account twice", "Policy", {"spec.grants.serviceAccounts.1": "triage"}, "Duplicate value"),
    ("no function of a tool", "Policy", {"spec.grants.tools.0.functions": []}, "should have at least 1 items"),
]  # fmt: skip
