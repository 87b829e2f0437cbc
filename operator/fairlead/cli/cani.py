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
    from fairlead.api.model import Model
    from fairlead.api.tool import Tool
    from fairlead.api.workflow import Workflow
    from fairlead.cli.manifests import Manifests
    from fairlead.flow.calls import Call
    from fairlead.flow.labels import Label
    from fairlead.policy.decision import Definitions, Snapshot
    from fairlead.policy.images import Image


def can_i(
    path: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="YAML with Workflows, Models, Tools, Policies.")],
    workflow: Annotated[str, typer.Option("--workflow", "-w", help="Whose run would call.")],
    tool: Annotated[str, typer.Option("--tool", help="TOOL.FUNCTION")] = "",
    model: Annotated[str, typer.Option("--model", help="A Model that is asked.")] = "",
    child: Annotated[str, typer.Option("--calls-workflow", help="A Workflow that is run as a child.")] = "",
    image: Annotated[
        str, typer.Option("--image", help="An image that is run: by each container step of the Workflow that names it.")
    ] = "",
    arguments: Annotated[
        str, typer.Option("--arguments", help="JSON that the function gets; the input of a child run or a container.")
    ] = "{}",
    label: Annotated[
        str,
        typer.Option("--label", help="Of what led to the call, as Untrusted/Confidential. Default: that of the input."),
    ] = "",
) -> None:
    """Say whether a call would be allowed as the first of your run, stage by stage; exit code 4 if not at once.

    Servers, Secrets, addresses and networks are not looked at: only what the files say. Roles that somebody wrote by
    hand on a cluster are not seen.
    """
    from fairlead.cli import manifests
    from fairlead.cli.inputs import read_json

    if sum(map(bool, (tool, model, child, image))) != 1:
        words = "say one of --tool TOOL.FUNCTION, --model NAME, --calls-workflow NAME and --image IMAGE"
        raise CommandFailed(Exit.USAGE, words)
    try:
        found = manifests.read([path])
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    workflows: dict[str, Workflow] = found.of("Workflow")
    if workflow not in workflows:
        raise CommandFailed(Exit.NOT_FOUND, f"there is no Workflow {workflow} in these files")
    caller, given = workflows[workflow], read_json("--arguments", arguments)
    calls = _containers(caller, image, given) if image else [_call(found, tool, model, child, given)]
    allowed = True
    for call in calls:
        if len(calls) > 1:
            print(f"step {call.id.path}")
        snapshot = asyncio.run(_snapshot(found, caller, call))
        allowed &= _tell(call, replace(snapshot, label=_label(caller, label)))
    if not allowed:
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


def _call(found: Manifests, tool: str, model: str, child: str, given: Any) -> Call:
    from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
    from fairlead.flow.journal import Path as Place
    from fairlead.policy.decide import MODEL_API

    place = CallId(Place("step"), 1, CallIndex())
    if child:
        return Call(place, CallKind.WORKFLOW, child, request={"input": given})
    if model:
        known = found.of("Model").get(model)
        embeds = known is not None and known.spec.api == MODEL_API[CallKind.EMBED]
        request: dict[str, Any] = {"texts": []} if embeds else {"messages": [], "parameters": {}}
        return Call(place, CallKind.EMBED if embeds else CallKind.CHAT, model, request=request)
    name, _, function = tool.partition(".")
    return Call(place, CallKind.TOOL, name, function, {"arguments": given})


def _containers(workflow: Workflow, image: str, given: Any) -> list[Call]:
    """Return the calls of the steps that run an image, each with what it asks for; if none does, of a bare one."""
    from pydantic import ValidationError

    from fairlead.api.container import ContainerStep
    from fairlead.flow.calls import Call, CallId, CallIndex, CallKind
    from fairlead.flow.journal import Path as Place
    from fairlead.flow.steps.container import request

    spec = workflow.spec
    steps = [*spec.steps, *(step for block in spec.blocks for step in block.steps)]
    running = [(one.name, one.container) for one in steps if one.container is not None and one.container.image == image]
    try:
        running = running or [("step", ContainerStep(image=image))]
    except ValidationError as error:
        raise CommandFailed(Exit.USAGE, f"--image: {error.errors()[0]['msg']}") from None
    return [
        Call(CallId(Place(name), 1, CallIndex()), CallKind.CONTAINER, image, request=request(step, given))
        for name, step in running
    ]


async def _snapshot(found: Manifests, workflow: Workflow, call: Call) -> Snapshot:
    from fairlead.api.model import Model
    from fairlead.api.tool import Tool
    from fairlead.api.workflow import Limits, Workflow
    from fairlead.engine.authorizer import GrantAuthorizer
    from fairlead.engine.beginning import NO_ACCOUNT
    from fairlead.engine.egress import declared_host
    from fairlead.flow.state import new_state
    from fairlead.policy.decide import called_function, required_permissions
    from fairlead.policy.decision import Authorization, Snapshot
    from fairlead.policy.effects import effect_of
    from fairlead.policy.images import Image, image_named, tags_allowed
    from fairlead.policy.rules import binding, scope_of

    account, policies = workflow.spec.service_account_name or NO_ACCOUNT, found.policies()
    target, needed = _target(found, call), required_permissions(call)
    tool, model = target if isinstance(target, Tool) else None, target if isinstance(target, Model) else None
    function = called_function(call, tool)
    scope = scope_of(
        call,
        new_state(),
        account=account,
        function=function,
        effect=effect_of(call, function),
        model=model,
        labels=workflow.metadata.labels,
    )
    scope["workflow"]["name"] = workflow.metadata.name
    scope["run"]["requestedBy"] = getuser()
    authorizer = GrantAuthorizer(policies)
    engine = found.of("Engine").get("default")
    return Snapshot(
        namespace=workflow.metadata.namespace or "default",
        account=account,
        model=model,
        tool=tool,
        workflow=target if isinstance(target, Workflow) else None,
        image=target if isinstance(target, Image) else None,
        image_granted=isinstance(target, Image) and image_named(policies.values(), account, target),
        image_tags=tags_allowed(engine.spec if engine is not None else None),
        host=declared_host(tool or model),
        definitions=_as_pinned(tool),
        authorization=await authorizer.authorize(account, needed) if needed else Authorization("Allowed"),
        policies=binding(policies.values(), workflow.metadata.labels),
        scope=scope,
        limits=workflow.spec.limits or Limits(),
    )


def _target(found: Manifests, call: Call) -> Tool | Model | Workflow | Image | None:
    from fairlead.flow.calls import CallKind
    from fairlead.policy.images import Image

    kinds = {CallKind.TOOL: "Tool", CallKind.WORKFLOW: "Workflow"}
    if call.kind is CallKind.CONTAINER:
        return Image(call.target)
    return found.of(kinds.get(call.kind, "Model")).get(call.target)


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
