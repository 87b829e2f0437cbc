"""The kitchen sink of the crash exam does what its list of effects says, with the script that its model has."""

from __future__ import annotations

import json
from typing import Any

from examples.servers.scripted import Play, Script
from tests.faults import kitchensink
from tests.unit.flow.world import Driver, World, accepted, chat, model, tool, workflow_named

from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.checks import check_workflow
from fairlead.flow.journal import Draft, EntryKind
from fairlead.flow.plan import compile_plan

RUN = kitchensink.run_name(1)


def test_a_kitchen_sink_has_the_effects_that_the_exam_counts() -> None:
    spec = WorkflowSpec.model_validate(kitchensink.sink()["spec"])
    assert check_workflow(spec, models={"scripted"}, tools={"ledger": dict.fromkeys(kitchensink.FUNCTIONS)}) == []
    play = Play(Script.model_validate({"turns": kitchensink.script([kitchensink.run_name(10), RUN])}))
    done: list[tuple[str, str]] = []

    def answer(call: Call) -> Any:
        match call.kind:
            case CallKind.CHAT:
                turn = play.next(dict(call.request))
                assert turn is not None
                said = turn.content if isinstance(turn.content, str) else json.dumps(turn.content or "")
                return chat(said, *((asked.name, json.dumps(asked.arguments)) for asked in turn.tool_calls))
            case CallKind.CONTAINER:
                return {"output": {}, "logs": ""}
            case CallKind.WORKFLOW:
                done.append((f"{call.request['input']['run']}-child", kitchensink.DO))
            case CallKind.TOOL if call.function != "read":
                done.append((call.request["arguments"].get("key", f"{RUN}-inside"), call.id.path))
        return {"count": 1}

    world = World(
        answer=answer,
        models={"scripted": model("Tools")},
        tools={"ledger": tool(*({"name": name, "effect": "Read"} for name in kitchensink.FUNCTIONS))},
        workflows={kitchensink.CHILD: workflow_named(kitchensink.CHILD)},
    )
    plan = compile_plan(kitchensink.NAME, "sha256:" + "0" * 64, spec)
    driver = Driver(plan, world, accepted(plan, {"run": RUN}))
    driver.append(Draft(EntryKind.SIGNAL, data={"index": 0, "name": "go", "by": "a person", "data": {}}))
    driver.run()
    assert driver.state.terminal is not None
    assert driver.state.terminal.kind is EntryKind.RUN_SUCCEEDED, driver.state.terminal
    assert sorted(done) == sorted(kitchensink.effects_of(RUN).items())
