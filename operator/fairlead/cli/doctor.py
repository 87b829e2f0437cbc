"""`fairlead doctor`: is what protects a namespace there, and does something stand beside it that undoes it?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fairlead.cli.access import Context, Namespace
from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.cli.access import Access
    from fairlead.cli.diagnosis import Finding, Object
    from fairlead.kube.types import ResourceType

_SIGNS = {"ok": "✔", "warning": "!", "problem": "✖", "unknown": "?"}


def doctor(namespace: Namespace = "", context: Context = "") -> None:
    """Look for missing guardrails, wildcard grants, open networks and objects that say something is wrong."""
    from fairlead.cli.access import on_cluster

    findings = on_cluster(context, namespace, _look)
    for finding in findings:
        print(f"{_SIGNS[finding.level]} {finding.what}" + (f"\n    {finding.advice}" if finding.advice else ""))
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        raise CommandFailed(Exit.FAILED, f"{problems} problems")


async def _look(access: Access) -> list[Finding]:
    from fairlead.cli import diagnosis
    from fairlead.kube import types

    unread: list[Finding] = []

    async def all_of(rt: ResourceType) -> list[Object]:
        return await _read(access, rt, unread)

    cluster_bindings = _of_kind(await all_of(types.CLUSTER_ROLE_BINDINGS), "ClusterRoleBinding")
    bindings = _of_kind(await all_of(types.ROLE_BINDINGS), "RoleBinding")
    tools, policies = await all_of(types.TOOLS), await all_of(types.POLICIES)
    engines = await all_of(types.ENGINES)
    roles, cluster_roles = await all_of(types.ROLES), await all_of(types.CLUSTER_ROLES)
    admission = await all_of(types.ADMISSION_POLICIES)
    guardrails = [*diagnosis.guardrails(admission, await all_of(types.ADMISSION_BINDINGS))]
    guarded = all(one.level != "problem" for one in guardrails) and diagnosis.believe_pods_alone(admission)
    everyones = [*bindings, *cluster_bindings]
    workflows, says = await all_of(types.WORKFLOWS), ("Ready", "Authorized", "DataFlowSafe", "TriggersReady")
    found = [
        *guardrails,
        *diagnosis.wide_grants(access.namespace, roles, cluster_roles, everyones),
        *(diagnosis.impersonators(roles, cluster_roles, everyones, guarded=guarded) if engines else ()),
        *diagnosis.objects("Engine", engines, ("Ready", "GuardrailsInstalled", "NetworkIsolation")),
        *diagnosis.unisolated(engines),
        *diagnosis.objects("ClusterPolicy", await all_of(types.CLUSTER_POLICIES), ("Ready",)),
        *diagnosis.objects("Policy", policies, ("Ready", "Enforced")),
        *diagnosis.objects("Tool", tools, ("Ready", "Reachable", "Pinned")),
        *diagnosis.objects("Model", await all_of(types.MODELS), ("Ready", "Reachable")),
        *diagnosis.objects("Workflow", workflows, says),
        *diagnosis.pins(tools, policies),
    ]
    return [*unread, *found]


async def _read(access: Access, rt: ResourceType, unread: list[Finding]) -> list[Object]:
    """Return all objects of a type; what the user may not read is a finding of its own."""
    from fairlead.cli.diagnosis import Finding
    from fairlead.errors import KubeError

    try:
        return [*await access.kube.list(rt, access.namespace if rt.namespaced else None)]
    except KubeError as error:
        if error.status != 403:
            raise
        unread.append(Finding("unknown", f"you may not list {rt.plural}: what depends on them is not known"))
        return []


def _of_kind(found: Iterable[Object], kind: str) -> list[Object]:
    return [{**obj, "kind": kind} for obj in found]
