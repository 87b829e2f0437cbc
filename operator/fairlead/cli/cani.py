"""`fairlead can-i`: what each stage of the decision says about a call, from files, by the code that the engine runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.api.tool import Tool
    from fairlead.api.workflow import Workflow
    from fairlead.cli.manifests import Manifests
    from fairlead.flow.calls import Call
    from fairlead.flow.labels import Label
    from fairlead.policy.decision import Definitions, Snapshot


def can_i(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="YAML with Workflows, Models, Tools, Policies.")],
    workflow: Annotated[str, typer.Option("--workflow", "-w", help="Whose run would call.")],
    tool: Annotated[str, typer.Option("--tool", help="TOOL.FUNCTION")] = "",
    model: Annotated[str, typer.Option("--model", help="A Model that is asked.")] = "",
    arguments: Annotated[str, typer.Option("--arguments", help="JSON that the function gets.")] = "{}",
    label: Annotated[
        str,
        typer.Option("--label", help="Of what led to the call, as Untrusted/Confidential. Default: that of the input."),
    ] = "",
) -> None:
    """Say whether a call would be allowed as the first of your run, stage by stage; exit code 4 if not at once.

    Servers, Secrets and addresses are not looked at: only what the files say.
    """
    from fairlead.cli import manifests
    from fairlead.cli.inputs import read_json

    if bool(tool) == bool(model):
        raise CommandFailed(Exit.USAGE, "say --tool TOOL.FUNCTION or --model NAME")
    try:
        found = manifests.read([path])
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    workflows: dict[str, Workflow] = found.of("Workflow")
    if workflow not in workflows:
        raise CommandFailed(Exit.NOT_FOUND, f"there is no Workflow {workflow} in these files")
    call = _call(found, tool, model, read_json("--arguments", arguments))
    snapshot = asyncio.run(_snapshot(found, workflows[workflow], call))
    if not _tell(call, replace(snapshot, label=_label(workflows[workflow], label))):
        raise typer.Exit(Exit.DENIED)


def _label(workflow: Workflow, text: str) -> Label:
    from fairlead.flow.labels import SENSITIVITIES, Label, of_input

    if not text:
        return of_input(workflow, None)
    trust, _, sensitivity = text.partition("/")
    if trust not in ("Trusted", "Untrusted") or sensitivity not in SENSITIVITIES:
        words = f"--label: Trusted or Untrusted, a slash, and one of {', '.join(SENSITIVITIES)}"
        raise CommandFailed(Exit.USAGE, words)
    return Label.parse(text)


def _call(found: Manifests, tool: str, model: str, arguments: Any) -> Call:
    from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
    from fairlead.flow.journal import Path as Place
    from fairlead.policy.decide import MODEL_API

    place = CallId(Place("step"), 1, CallIndex())
    if model:
        known = found.of("Model").get(model)
        embeds = known is not None and known.spec.api == MODEL_API[CallKind.EMBED]
        request: dict[str, Any] = {"texts": []} if embeds else {"messages": [], "parameters": {}}
        return Call(place, CallKind.EMBED if embeds else CallKind.CHAT, model, request=request)
    name, _, function = tool.partition(".")
    return Call(place, CallKind.TOOL, name, function, {"arguments": arguments})


async def _snapshot(found: Manifests, workflow: Workflow, call: Call) -> Snapshot:
    from fairlead.api.workflow import Limits
    from fairlead.engine.authorizer import GrantAuthorizer
    from fairlead.engine.beginning import NO_ACCOUNT
    from fairlead.engine.egress import declared_host
    from fairlead.flow.state import new_state
    from fairlead.policy.decide import find_function, required_permissions
    from fairlead.policy.decision import Snapshot
    from fairlead.policy.rules import binding, scope_of

    account, policies = workflow.spec.service_account_name or NO_ACCOUNT, found.policies()
    tool, model = found.of("Tool").get(call.target), found.of("Model").get(call.target)
    function = find_function(tool, call.function) if tool is not None else None
    scope = scope_of(
        call,
        new_state(),
        account=account,
        function=function,
        effect=function.effect if function is not None else "Read",
        model=model,
        labels=workflow.metadata.labels,
    )
    scope["workflow"]["name"] = workflow.metadata.name
    scope["run"]["requestedBy"] = getuser()
    return Snapshot(
        namespace=workflow.metadata.namespace or "default",
        account=account,
        model=model,
        tool=tool,
        host=declared_host(tool or model),
        definitions=_as_pinned(tool),
        authorization=await GrantAuthorizer(policies).authorize(account, required_permissions(call)),
        policies=binding(policies.values(), workflow.metadata.labels),
        scope=scope,
        limits=workflow.spec.limits or Limits(),
    )


def _as_pinned(tool: Tool | None) -> Definitions:
    """No server is asked: each is taken to define its functions as they are pinned."""
    from fairlead.policy.decision import Definitions

    functions = tool.spec.functions if tool is not None else []
    return Definitions({function.name: function.pin for function in functions if function.pin is not None})


def _tell(call: Call, snapshot: Snapshot) -> bool:
    """Print each stage up to the first objection, and return whether there was none."""
    from fairlead.policy.decide import STAGES, would_deny

    for number, stage in enumerate(STAGES, start=4):
        decision = stage(call, snapshot)
        name = stage.__name__.replace("_", " ")
        if decision is not None:
            print(f"✖ {number:>2} {name:<10} {decision.reason}: {decision.message}")
            return False
        print(f"✔ {number:>2} {name}")
    for breach in would_deny(call, snapshot):
        print(f"  audit: {breach}")
    return True
