"""`fairlead lint`: the checks of API server and operator, before anything is applied."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.api.policy import Policy
    from fairlead.api.tool import Tool
    from fairlead.api.workflow import WorkflowSpec
    from fairlead.cli.manifests import Manifest, Manifests, Problem


def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIR...", help="YAML files, or folders of them.")],
) -> None:
    """Check files without a cluster: fields, expressions, references, bounds.

    Prints one line per finding, `file:document path: message`, and what could not be checked without a cluster.
    """
    from fairlead.cli import manifests

    try:
        found = manifests.read(paths)
    except FileNotFoundError as error:
        raise CommandFailed(Exit.NOT_FOUND, str(error)) from error
    problems = found.problems + check(found)
    for problem in problems:
        print(problem)
    for note in unchecked(found):
        print(f"not checked: {note}")
    count = len(found.items)
    print(f"{count} object{'' if count == 1 else 's'}, {len(problems)} finding{'' if len(problems) == 1 else 's'}")
    if problems:
        raise typer.Exit(Exit.FAILED)


def check(found: Manifests) -> list[Problem]:
    """Return what the operator's static checks and the CRDs' own rules find.

    Models and Tools are looked up only when the files hold any of that kind: else they stand in the cluster. So do
    other Workflows, when the files hold one alone.
    """
    from fairlead.api.model import EMBEDDINGS
    from fairlead.flow.checks import check_workflow
    from fairlead.policy.clusterwide import as_policy
    from fairlead.policy.contract import contract_problems
    from fairlead.policy.rules import problems as policy_problems

    models = found.of("Model") or None
    embedders = [name for name, model in models.items() if model.spec.api == EMBEDDINGS] if models else None
    tools = {name: _functions(tool) for name, tool in found.of("Tool").items()} or None
    specs: dict[str, WorkflowSpec] = {name: workflow.spec for name, workflow in found.of("Workflow").items()}
    schemas = {name: spec.input.schema_ if spec.input else None for name, spec in specs.items()}
    workflows = schemas if len(schemas) > 1 else None
    problems = []
    for item in found.items:
        if item.kind == "Workflow":
            spec = item.resource.spec
            findings = check_workflow(
                spec,
                models=models,
                tools=tools,
                embedders=embedders,
                workflows=workflows,
                specs=specs.get,
                name=item.name,
            )
            problems += [item.problem(_in_spec(finding.path), finding.message) for finding in findings]
        if item.kind == "Tool":
            problems += [item.problem(wrong.path, wrong.message) for wrong in contract_problems(item.resource)]
        if item.kind == "Policy":
            problems += _grants(item, found)
        if item.kind in ("Policy", "ClusterPolicy"):
            policy = as_policy(item.resource) if item.kind == "ClusterPolicy" else item.resource
            problems += [item.problem(wrong.path, wrong.message) for wrong in policy_problems(policy)]
    return problems + _leaks(found)


def _functions(tool: Tool) -> dict[str, dict[str, Any] | None]:
    return {function.name: function.input.schema_ if function.input else None for function in tool.spec.functions}


def _leaks(found: Manifests) -> list[Problem]:
    """Return where data may leave, of Workflows that a Policy of the files accepts no run of for that."""
    from fairlead.flow.worst import worst_of
    from fairlead.policy.flows import forbidden_before
    from fairlead.policy.rules import binding

    problems = []
    for item in found.items:
        if item.kind != "Workflow":
            continue
        rules = forbidden_before(binding(found.policies().values(), item.resource.metadata.labels))
        forbid = [rule for rule in rules if rule.enforced]
        leaks = worst_of(item.resource, found.of("Tool"), found.of("Workflow")).leaks if forbid else ()
        problems += [item.problem(leak.path, f"{leak} ({forbid[0]})") for leak in leaks]
    return problems


def unchecked(found: Manifests) -> list[str]:
    """Return what only a cluster knows."""
    notes = []
    if found.of("Workflow"):
        if not found.of("Model"):
            notes.append("whether the Models exist: the files hold none")
        if not found.of("Tool"):
            notes.append("whether the Tools and their functions exist: the files hold none")
        if len(found.of("Workflow")) == 1 and _has_children(found):
            notes.append("whether the Workflows that run as children exist: the files hold one alone")
        granted = {account for policy in found.of("Policy").values() for account in _accounts(policy)}
        accounts = {workflow.spec.service_account_name for workflow in found.of("Workflow").values()} - {None}
        notes += [f"what the account {name} may do: no Policy here names it" for name in sorted(accounts - granted)]
    if found.of("Model") or found.of("Tool"):
        notes.append("whether servers and Secrets exist and answer")
    if found.skipped:
        notes.append(f"{found.skipped} document{'' if found.skipped == 1 else 's'} of other kinds")
    return notes


def _has_children(found: Manifests) -> bool:
    from fairlead.flow.children import workflows_of

    return any(workflows_of(workflow.spec) for workflow in found.of("Workflow").values())


def _in_spec(path: str) -> str:
    return path if path.startswith("spec") else f"spec.{path}"


def _accounts(policy: Policy) -> list[str]:
    grants = policy.spec.grants
    return grants.service_accounts if grants else []


def _grants(item: Manifest, found: Manifests) -> list[Problem]:
    """A grant of what does not exist is no error to Kubernetes, but here it is most likely a slip of the pen."""
    grants, problems = item.resource.spec.grants, []
    models, tools, workflows = found.of("Model"), found.of("Tool"), found.of("Workflow")
    for index, name in enumerate(grants.workflows if grants and workflows else []):
        if name not in workflows:
            problems.append(item.problem(f"spec.grants.workflows[{index}]", f"no Workflow {name} in these files"))
    for index, name in enumerate(grants.models if grants and models else []):
        if name not in models:
            problems.append(item.problem(f"spec.grants.models[{index}]", f"no Model {name} in these files"))
    for index, grant in enumerate(grants.tools if grants and tools else []):
        path = f"spec.grants.tools[{index}]"
        if grant.tool not in tools:
            problems.append(item.problem(f"{path}.tool", f"no Tool {grant.tool} in these files"))
            continue
        known = {function.name for function in tools[grant.tool].spec.functions}
        problems += [
            item.problem(f"{path}.functions", f"{name} is not in the contract of Tool {grant.tool}")
            for name in grant.functions or []
            if name not in known
        ]
    return problems
