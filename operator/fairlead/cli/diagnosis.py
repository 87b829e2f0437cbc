"""What may be wrong with the governance of a namespace, from what stands in the cluster. Dicts in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fairlead import __version__
from fairlead.api import GROUP
from fairlead.api.reasons import DataFlowReason, PinnedReason

Object = Mapping[str, Any]
Level = Literal["ok", "warning", "problem", "unknown"]

GUARDRAILS = tuple(
    f"fairlead-{name}"
    for name in (
        "approvals",
        "engine-scope",
        "network",
        "operator-grants",
        "operator-objects",
        "operator-scope",
        "operator-workloads",
        "pod-access",
        "pods",
        "policy-grant",
        "run-invoke",
        "run-labels",
        "run-signals",
        "server-proxy",
        "status-writers",
        "step-pods",
        "tokens",
        "tool-weakening",
        "workflow-account",
        "workloads",
    )
)
"""The admission policies of the chart."""

EVERYBODY = ("system:authenticated", "system:unauthenticated", "system:serviceaccounts")
ENGINE_ACCOUNT = "fairlead-engine"
POD_NAME = "authentication.kubernetes.io/pod-name"
"""By which admission tells the engine's pod, and the operator's, from who impersonates their accounts."""
_POD_NAMES = (f"userextras/{POD_NAME}", f"*/{POD_NAME}")
_INVOKABLE = frozenset({"tools", "toolfunctions", "models", "workflows", "*"})


_NO_PROBLEM = frozenset({PinnedReason.UNPINNED.value})
"""Reasons of conditions that are False and nevertheless as somebody wants it; `pins` looks at that."""

_WARNED_OF = frozenset({DataFlowReason.UNTRUSTED_TO_EXTERNAL.value})
"""Reasons of conditions that are False and keep nothing from running, unless a Policy says so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing: how bad it is, what it is, and what would be right."""

    level: Level
    what: str
    advice: str = ""


def guardrails(policies: Iterable[Object], bindings: Iterable[Object]) -> Iterator[Finding]:
    """Look for the chart's admission policies, and that each is bound everywhere and denies.

    What their expressions say is not looked at: the chart is not here to compare them with.
    """
    installed = {policy["metadata"]["name"]: policy for policy in policies}
    denying = {
        binding["spec"].get("policyName")
        for binding in bindings
        if "Deny" in binding["spec"].get("validationActions", ()) and "matchResources" not in binding["spec"]
    }
    found = [
        Finding(level, f"the admission policy {name} {what}", "upgrade the chart with admission.enabled=true")
        for name in GUARDRAILS
        for level, what in _lacks(installed.get(name), denies=name in denying)
    ]
    yield from found or [
        Finding("ok", f"{len(GUARDRAILS)} admission policies deny; their expressions are not compared")
    ]


def believe_pods_alone(policies: Iterable[Object]) -> bool:
    """Tell whether what the engine may write is asked of its pod, as by this version's chart, and not of its name."""
    specs = {policy["metadata"]["name"]: str(policy["spec"]) for policy in policies}
    return all(POD_NAME in specs.get(name, "") for name in ("fairlead-engine-scope", "fairlead-status-writers"))


def _lacks(policy: Object | None, *, denies: bool) -> Iterator[tuple[Level, str]]:
    """Yield how an admission policy is less than the chart's of this version."""
    if policy is None:
        yield "problem", "is not installed"
        return
    spec, version = policy["spec"], (policy["metadata"].get("labels") or {}).get("app.kubernetes.io/version")
    if not denies:
        yield "problem", "is installed and does not deny everywhere"
    if spec.get("failurePolicy", "Fail") != "Fail":
        yield "problem", f"lets through what it cannot evaluate: its failurePolicy is {spec['failurePolicy']}, not Fail"
    if not (spec.get("matchConstraints") or {}).get("resourceRules"):
        yield "problem", "looks at nothing: it has no matchConstraints.resourceRules"
    if not [one for one in spec.get("validations") or () if one.get("expression", "").strip() != "true"]:
        yield "problem", "denies nothing: it has no validation that could fail"
    if version != __version__:
        yield "warning", f"is of version {version or 'unknown'}, and this is fairlead {__version__}"


def wide_grants(
    namespace: str, roles: Iterable[Object], cluster_roles: Iterable[Object], bindings: Iterable[Object]
) -> Iterator[Finding]:
    """Look for Roles that let accounts of the namespace invoke whatever there is, and for grants to everybody.

    Args:
        namespace: the one that is looked at.
        roles: its Roles.
        cluster_roles: all ClusterRoles.
        bindings: its RoleBindings, and all ClusterRoleBindings.
    """
    rules = _rules(roles, cluster_roles)
    found = False
    for binding in bindings:
        reference = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        wide = [rule for rule in rules.get(reference, ()) if _invokes(rule) and not rule.get("resourceNames")]
        narrow = any(_invokes(rule) for rule in rules.get(reference, ()))
        for subject in binding.get("subjects") or ():
            who = f"{subject['kind']} {subject['name']}"
            everybody = subject["kind"] == "Group" and subject["name"].startswith(EVERYBODY)
            mine = subject["kind"] == "ServiceAccount" and subject.get("namespace") == namespace
            how = f"by {reference[0]} {reference[1]} ({binding['kind']} {binding['metadata']['name']})"
            if (wide and mine) or (narrow and everybody):
                found = True
                what = "may invoke whatever there is" if wide else "may invoke"
                yield Finding("warning", f"{who} {what}, {how}", "grant functions by name, in a Policy")
    if not found:
        yield Finding("ok", "no account of the namespace may invoke whatever there is")


def impersonators(
    roles: Iterable[Object], cluster_roles: Iterable[Object], bindings: Iterable[Object], *, guarded: bool
) -> Iterator[Finding]:
    """Look for who may write as the engine without being it.

    Where the admission policies are there, that takes the right to say which pod one is in, which a ClusterRoleBinding
    alone can give. Where they are not, every impersonator of the account is taken for the engine.

    Args:
        roles: those of the namespace.
        cluster_roles: all ClusterRoles.
        bindings: the namespace's RoleBindings, and all ClusterRoleBindings.
        guarded: whether the admission policies are there.
    """
    rules, found = _rules(roles, cluster_roles), False
    wanted = "ClusterRoleBinding" if guarded else "RoleBinding"
    pretends = _names_its_pod if guarded else _impersonates
    what = f"impersonate {ENGINE_ACCOUNT}{' in its pod' if guarded else ''}, and so write as it"
    advice = "bind a role without `impersonate` on " + (
        f"userextras/{POD_NAME}" if guarded else "serviceaccounts, which Kubernetes' own edit and admin have"
    )
    for binding in bindings:
        kind, name = binding["roleRef"]["kind"], binding["roleRef"]["name"]
        granted = rules.get((kind, name), ())
        # Who may do everything everywhere administers the cluster.
        everything = guarded and any(_allows(rule, "*", "*", "*") for rule in granted)
        if binding["kind"] != wanted or everything or not any(pretends(rule) for rule in granted):
            continue
        for subject in binding.get("subjects") or ():
            found = True
            how = f"by {kind} {name} ({wanted} {binding['metadata']['name']})"
            yield Finding("warning", f"{subject['kind']} {subject['name']} may {what}, {how}", advice)
    if not found:
        yield Finding("ok", f"no {wanted} lets anybody {what}")


def _rules(roles: Iterable[Object], cluster_roles: Iterable[Object]) -> dict[tuple[str, str], Sequence[Object]]:
    return {
        (kind, role["metadata"]["name"]): role.get("rules") or []
        for kind, found in (("Role", roles), ("ClusterRole", cluster_roles))
        for role in found
    }


def _impersonates(rule: Object) -> bool:
    names = rule.get("resourceNames") or (ENGINE_ACCOUNT,)
    return ENGINE_ACCOUNT in names and _allows(rule, "", "serviceaccounts", "impersonate")


def _names_its_pod(rule: Object) -> bool:
    names = rule.get("resourceNames") or (ENGINE_ACCOUNT,)
    return any(name.startswith(ENGINE_ACCOUNT) for name in names) and any(
        _allows(rule, "authentication.k8s.io", resource, "impersonate") for resource in _POD_NAMES
    )


def _allows(rule: Object, group: str, resource: str, verb: str) -> bool:
    wanted = (("apiGroups", group), ("resources", resource), ("verbs", verb))
    return all({one, "*"} & {*(rule.get(key) or ())} for key, one in wanted)


def _invokes(rule: Mapping[str, Any]) -> bool:
    groups, verbs, resources = (rule.get(key) or () for key in ("apiGroups", "verbs", "resources"))
    in_group, may = GROUP in groups or "*" in groups, "invoke" in verbs or "*" in verbs
    return in_group and may and not _INVOKABLE.isdisjoint(resources)


def objects(kind: str, found: Sequence[Object], conditions: Sequence[str]) -> Iterator[Finding]:
    """Look at what objects say of themselves: conditions that are False, or that nobody knows yet."""
    wrong = False
    for obj in found:
        said = {one["type"]: one for one in (obj.get("status") or {}).get("conditions", ())}
        for type_ in conditions:
            condition = said.get(type_)
            if condition is None or condition["status"] == "True" or condition["reason"] in _NO_PROBLEM:
                continue
            wrong, is_false = True, condition["status"] == "False"
            what = f"{type_} is {'False' if is_false else 'not known yet'}"
            message = condition.get("message") or condition["reason"]
            level: Level = "unknown" if not is_false else "warning" if condition["reason"] in _WARNED_OF else "problem"
            yield Finding(level, f"{kind} {obj['metadata']['name']}: {what}: {message}")
    if found and not wrong:
        yield Finding("ok", f"{kind}: {len(found)}, none says that something is wrong")


def unisolated(engines: Iterable[Object]) -> Iterator[Finding]:
    """Look for Engines whose servers and containers start whatever the network does."""
    for engine in engines:
        if (engine["spec"].get("security") or {}).get("requireNetworkIsolation") == "NotRequired":
            yield Finding(
                "warning",
                f"Engine {engine['metadata']['name']}: requireNetworkIsolation is NotRequired: nothing waits until the "
                "network locks pods in",
                "where the network enforces NetworkPolicies, set spec.security.requireNetworkIsolation to Required",
            )


def pins(tools: Iterable[Object], policies: Iterable[Object]) -> Iterator[Finding]:
    """Look for functions without a pin, where no Policy demands them."""
    required = any((policy["spec"].get("rules") or {}).get("pins") == "Required" for policy in policies)
    unpinned = [
        f"{tool['metadata']['name']}.{function['name']}"
        for tool in tools
        for function in tool["spec"].get("functions", ())
        if "pin" not in function
    ]
    if unpinned and not required:
        shown = ", ".join(unpinned[:5]) + (f" and {len(unpinned) - 5} more" if len(unpinned) > 5 else "")
        advice = "review and pin them: fairlead pin; then a Policy with `pins: Required`"
        yield Finding("warning", f"functions that nobody has reviewed may be called: {shown}", advice)
