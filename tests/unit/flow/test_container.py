"""Containers that call: what they may do is known beforehand, and what they did is not done again."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from tests.unit.flow.test_labels import FUNCTIONS
from tests.unit.flow.test_worst import TOOLS, flow
from tests.unit.flow.world import Driver, World, accepted, drive, error, plan_of, step, tool

from fairlead.api.workflow import WorkflowSpec
from fairlead.engine.authorized import permissions_of
from fairlead.flow.calls import Call, CallIndex, CallKind
from fairlead.flow.checks import check_workflow
from fairlead.flow.journal import Draft, EntryKind, Path
from fairlead.flow.labels import TRUSTED
from fairlead.flow.recover import abandoned, recover
from fairlead.flow.runstate import CallState, StepState
from fairlead.flow.steps.attempt import Attempt
from fairlead.flow.worst import worst_of
from fairlead.policy.permission import function_permission, model_permission

IMAGE = "example.com/agent@sha256:" + "0" * 64
EFFECTS = [
    {"name": "look", "effect": "Read"},
    {"name": "send", "effect": "Irreversible"},
    {"name": "keyed", "effect": "Irreversible", "idempotency": {"header": "Idempotency-Key"}},
]


def container(*functions: str, name: str = "work", **more: Any) -> dict[str, Any]:
    tools = [{"tool": "t", "functions": list(functions)}] if functions else []
    return {"name": name, "container": {"image": IMAGE, "tools": tools}, **more}


def run(*functions: str, limit: int = 2) -> Driver:
    """Run a container that calls these functions and then is lost with its node."""

    def answer(call: Call) -> Any:
        return error("Unavailable") if call.kind is CallKind.CONTAINER else {"n": 1}

    plan = plan_of([container(*functions, retry={"limit": limit})])
    return drive(plan, World(answer=answer, tools={"t": tool(*EFFECTS)}))


@pytest.mark.requirement("G2", "F10")
@pytest.mark.parametrize(
    ("functions", "attempts"), [((), 3), (("look",), 3), (("look", "keyed"), 3), (("look", "send"), 1)]
)
def test_what_cannot_be_repeated_is_not_by_another_attempt(functions: tuple[str, ...], attempts: int) -> None:
    driver = run(*functions)
    assert step(driver.state, "work").attempt == attempts
    sent = [call for call in driver.world.performed if call.function == "send"]
    assert len(sent) == ("send" in functions)


@pytest.mark.requirement("G2", "G3")
@pytest.mark.parametrize("around", ["block", "parallel", "forEach", "repeat"])
def test_nor_by_whatever_is_around_it(around: str) -> None:
    def answer(call: Call) -> Any:
        return error("ToolError", "ExitCode") if call.kind is CallKind.CONTAINER else {"n": 1}

    retry = {"retry": {"limit": 2, "errorClasses": ["ToolError", "Unavailable"]}}
    outer: dict[str, Any] = {"name": "outer", **retry}
    match around:
        case "parallel":
            outer["parallel"] = {"blocks": ["b"]}
        case "forEach":
            outer |= {"block": "b", "forEach": {"items": [1]}}
        case "repeat":
            outer |= {"block": "b", "repeat": {"until": "false", "maxIterations": 3}}
        case _:
            outer["block"] = "b"
    plan = plan_of([outer], blocks=[{"name": "b", "steps": [container("send")]}])
    driver = drive(plan, World(answer=answer, tools={"t": tool(*EFFECTS)}))
    assert sum(call.function == "send" for call in driver.world.performed) == 1
    assert driver.state.terminal is not None and driver.state.terminal.reason == "OutcomeUnknown"
    assert "ExitCode: it went wrong; it is not tried again, because t.send may not" in driver.state.terminal.message


@pytest.mark.requirement("G3")
@pytest.mark.parametrize(
    ("index", "effect", "reads"),
    [
        ("1.0.0", "Read", True),
        ("1.0.0", "", True),
        ("1.0.0", "Irreversible", False),
        ("0.0.0.1", "Irreversible", True),
    ],
)
def test_a_container_is_a_read_while_all_that_it_called_is(index: str, effect: str, reads: bool) -> None:
    """A met join cuts reads, and waits for everything else. That people were told is not the container's doing."""
    own = CallState("0.0.0", CallKind.CONTAINER, IMAGE, effect="Read")
    called = CallState(index, CallKind.TOOL, "t", "f", effect=effect)
    state = StepState(Path("work"), calls={one.index: one for one in (own, called)})
    nothing: Any = None
    attempt = Attempt(state, state.path, 0, nothing, 0, nothing)
    assert attempt.reads(CallIndex()) is reads


def test_what_told_people_of_a_container_neither_forbids_another_attempt_nor_is_read_by_anybody() -> None:
    plan = plan_of([container("look", retry={"limit": 1})])
    work, told = Path("work"), {"index": "0.0.0.1", "kind": "Tool", "target": "t", "function": "send", "digest": ""}
    journal = accepted(plan, inputLabel="Trusted/Public")
    for kind, data in (
        (EntryKind.STEP_STARTED, {}),
        (EntryKind.CALL_INTENT, told | {"effect": "Irreversible"}),
        (EntryKind.CALL_OUTCOME, told | {"status": "Succeeded", "result": {}, "label": "Untrusted/Confidential"}),
    ):
        journal.append(Draft(kind, work, 1, data))
    assert step(journal.fold(), "work").context == TRUSTED
    driver = Driver(plan, World(answer=lambda call: error("Unavailable"), tools={"t": tool(*EFFECTS)}), journal)
    driver.run()
    assert step(driver.state, "work").attempt == 2


@pytest.mark.requirement("G2")
def test_another_attempt_uses_the_same_keys() -> None:
    driver = run("keyed", limit=1)
    keys = [entry.data["key"] for entry in driver.journal.of(EntryKind.CALL_INTENT) if "key" in entry.data]
    assert len(keys) == 2 and keys[0] == keys[1]


@pytest.mark.requirement("G3")
def test_of_what_was_open_at_a_crash_only_what_cannot_be_repeated_is_unknown_at_once() -> None:
    journal = accepted(plan_of([container("look", "send", "keyed")]))
    journal.append(Draft(EntryKind.STEP_STARTED, Path("work"), 1))
    opened: list[tuple[str, str, dict[str, str]]] = [
        ("look", "Read", {}),
        ("send", "Irreversible", {}),
        ("keyed", "Irreversible", {"key": "k"}),
    ]
    for number, (function, effect, key) in enumerate(opened, start=1):
        data = {"index": f"{number}.0.0", "kind": "Tool", "target": "t", "function": function, "digest": "d"}
        journal.append(Draft(EntryKind.CALL_INTENT, Path("work"), 1, data | {"effect": effect} | key))
    state = journal.fold()
    work = step(state, "work")
    assert [draft.data["index"] for draft in recover(state)] == ["2.0.0"]
    ends = [abandoned(work.path, 1, work.calls[index]).data["error"]["class"] for index in ("1.0.0", "3.0.0")]
    assert ends == ["Cancelled", "OutcomeUnknown"]


def test_what_a_step_names_must_exist() -> None:
    text = f"""
serviceAccountName: worker
steps:
- name: a
  container:
    image: {IMAGE}
    models: [smal]
    tools: [{{tool: t, functions: [loook]}}, {{tool: u}}, {{tool: t}}]
"""
    spec = WorkflowSpec.model_validate(yaml.safe_load(text))
    found = check_workflow(spec, models=["small"], tools={"t": {"look": None}}, workflows={}, name="w")
    assert [(finding.path, finding.message.partition(";")[0]) for finding in found] == [
        ("spec.steps[0].container.models[0]", "there is no Model 'smal'"),
        ("spec.steps[0].container.tools[0].functions[0]", "Tool 't' has no function 'loook'"),
        ("spec.steps[0].container.tools[1].tool", "there is no Tool 'u'"),
        ("spec.steps[0].container.tools[2]", "'t' is offered by tools[0] already"),
    ]


def test_what_a_step_names_must_be_granted() -> None:
    agent = {"name": "a", "container": {"image": IMAGE, "models": ["small"], "tools": [{"tool": "t"}]}}
    spec = WorkflowSpec.model_validate({"serviceAccountName": "worker", "steps": [agent]})
    wanted = [model_permission("small"), *(function_permission("t", one["name"]) for one in EFFECTS)]
    assert permissions_of(spec, {"t": tool(*EFFECTS)}) == wanted


@pytest.mark.requirement("A36")
def test_a_container_that_could_leak_is_found_beforehand() -> None:
    work = {"name": "a", "container": {"image": IMAGE, "tools": [{"tool": "t"}]}}
    (leak, *_) = worst_of(flow(work), TOOLS, {}).leaks
    assert str(leak) == "step 'a' may send Confidential data from 'a' after untrusted data from 'a'"
    assert leak.path == "spec.steps[0].container.tools[0]"
    reads = {"name": "a", "container": {"image": IMAGE, "tools": [{"tool": "t", "functions": ["fetch"]}]}}
    assert worst_of(flow(reads), {"t": tool(*FUNCTIONS)}, {}).leaks == []
