"""`fairlead grants`: the least Policy that a file's Workflows need, to be reviewed and applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.api.policy import Policy
    from fairlead.api.tool import Tool
    from fairlead.api.workflow import Workflow, WorkflowSpec


def grants(
    file: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="YAML with Workflows, Tools and Policies.")],
) -> None:
    """Print the Policy that grants each account exactly what its Workflows name, and what rules have them call."""
    import yaml

    from fairlead.cli import manifests

    try:
        found = manifests.read([file])
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    by_account: dict[str, list[Workflow]] = {}
    for workflow in found.of("Workflow").values():
        if workflow.spec.service_account_name is not None:
            by_account.setdefault(workflow.spec.service_account_name, []).append(workflow)
    if not by_account:
        raise CommandFailed(Exit.NOT_FOUND, f"{file} holds no Workflow that names a serviceAccountName")
    tools, policies = found.of("Tool"), found.policies().values()
    least = [least_policy(account, workflows, tools, policies) for account, workflows in sorted(by_account.items())]
    print(yaml.safe_dump_all(least, sort_keys=False), end="")


def least_policy(
    account: str, workflows: Iterable[Workflow], tools: Mapping[str, Tool], policies: Iterable[Policy] = ()
) -> dict[str, Any]:
    """Return the Policy that lets an account do what these Workflows name, and nothing else.

    Args:
        account: the ServiceAccount.
        workflows: those that act as it.
        tools: the known Tools by name. An agent may use every function of a Tool: an unknown Tool is granted whole.
        policies: the known ones: where a rule of theirs tells people (`notify`), it does so as the account.
    """
    from fairlead.api import API_VERSION
    from fairlead.engine.authorized import permissions_of
    from fairlead.policy.images import images_of
    from fairlead.policy.rules import binding, notices

    models: set[str] = set()
    children: set[str] = set()
    functions: dict[str, set[str]] = {}
    whole: set[str] = set()
    images: set[str] = set()
    for workflow in workflows:
        spec = workflow.spec
        for permission, *_ in permissions_of(spec, tools):
            if permission.resource == "models":
                models.add(permission.name)
            elif permission.resource == "workflows":
                children.add(permission.name)
            else:
                tool, _, function = permission.name.partition(".")
                functions.setdefault(tool, set()).add(function)
        images |= {image.name for image in images_of(spec)}
        whole |= {name for name in _offered_whole(spec) if name not in tools}
        for told in notices(binding(policies, workflow.metadata.labels)):
            functions.setdefault(told.tool, set()).add(told.function)
    granted: dict[str, Any] = {"serviceAccounts": [account]}
    if models:
        granted["models"] = sorted(models)
    if functions or whole:
        granted["tools"] = [
            {"tool": tool} if tool in whole else {"tool": tool, "functions": sorted(functions[tool])}
            for tool in sorted(functions.keys() | whole)
        ]
    if children:
        granted["workflows"] = sorted(children)
    if images:
        granted["images"] = sorted(images)
    return {
        "apiVersion": API_VERSION,
        "kind": "Policy",
        "metadata": {"name": account},
        "spec": {"grants": granted},
    }


def _offered_whole(spec: WorkflowSpec) -> Iterable[str]:
    """Yield the Tools that an agent or a container may use without a list of functions."""
    from fairlead.flow.sites import offers

    for step in (*spec.steps, *(step for block in spec.blocks for step in block.steps)):
        yield from (offer.tool for offer in offers(step, "") if offer.functions is None)
