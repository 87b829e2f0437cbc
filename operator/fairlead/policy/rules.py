"""The rules of Policies: which of them bind a run, and what a call would break. Pure.

Rules only ever take away: what none of them forbids is left to the other stages, and several Policies forbid what any
of them forbids. A rule that cannot be evaluated is broken. A Policy in Audit mode finds the same and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.model import Model
from fairlead.api.policy import Policy, Rules
from fairlead.api.tool import Function
from fairlead.api.toolcall import ToolCall
from fairlead.errors import StepError
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.celtypes import judge, unlike
from fairlead.flow.expressions import ExpressionError, compile_expression, evaluate_bool
from fairlead.flow.runstate import RunState
from fairlead.flow.template import expressions_in
from fairlead.policy.decision import Breach, Requirement

NAMES: Mapping[str, frozenset[str]] = {
    "call": frozenset(
        {
            *("kind", "model", "tool", "workflow", "image", "function", "effect"),
            *("arguments", "parameters", "input", "path"),
        }
    ),
    "run": frozenset({"name", "uid", "account", "requestedBy"}),
    "workflow": frozenset({"name", "labels"}),
}
"""What an expression of a rule can read. Every name is there for every call; what does not concern it is empty."""

NOTICE_NAMES: Mapping[str, frozenset[str]] = {**NAMES, "approval": frozenset({"name"})}
"""What `approval.notify.arguments` can read."""

UNREADABLE = "unreadable"

_KINDS = {
    CallKind.CHAT: "model",
    CallKind.EMBED: "model",
    CallKind.TOOL: "tool",
    CallKind.WORKFLOW: "workflow",
    CallKind.CONTAINER: "container",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that cannot be right: the path of its field and what is wrong with it."""

    path: str
    message: str


def binding(
    policies: Iterable[Policy], labels: Mapping[str, str] | None, *, frozen: Mapping[str, str] | None = None
) -> tuple[Policy, ...]:
    """Return the Policies whose rules bind the runs of a Workflow, by name, so that their order never matters.

    Args:
        policies: those of the namespace.
        labels: the Workflow's; None when it is gone: then every Policy binds.
        frozen: those that it had when a run was accepted: who relabels it does not free the run.
    """
    looks = [labels] if frozen is None else [labels, frozen]
    bound = [one for one in policies if one.spec.rules is not None and any(_selects(one, look) for look in looks)]
    return tuple(sorted(bound, key=lambda policy: policy.metadata.name))


def call_rules(call: Call, scope: Mapping[str, Any], policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield what a call breaks of `rules.calls`; `scope` is that of `scope_of`.

    A rule that asks for people is broken where it has no value; in Audit mode also where it holds.
    """
    for policy in policies:
        rules = policy.spec.rules
        for rule in rules.calls if rules else ():
            try:
                broken, message = evaluate_bool(rule.when, scope), rule.message
            except StepError as error:
                yield _breach(policy, rule.name, f"it cannot be evaluated, which denies: {error.message}")
                continue
            if broken and (rule.approval is None or policy.spec.mode == "Audit"):
                yield _breach(policy, rule.name, message)


def call_approvals(call: Call, scope: Mapping[str, Any], policies: Iterable[Policy]) -> Iterator[Requirement]:
    """Yield which rules let a call happen only when people approve it. What has no value denies, see `call_rules`."""
    for policy in policies:
        rules = policy.spec.rules if policy.spec.mode != "Audit" else None
        for rule in rules.calls if rules else ():
            if rule.approval is None:
                continue
            try:
                asks = evaluate_bool(rule.when, scope)
            except StepError:
                continue
            if asks:
                yield Requirement(policy.metadata.name, rule)


def call_limits(call: Call, made: Mapping[str, int], policies: Iterable[Policy]) -> Iterator[Breach]:
    """Yield the `rules.limits` without room for one more call; `made` counts the run's calls by `tool.function`.

    A notice of a rule is none of the run's.
    """
    counts = call.kind is CallKind.TOOL and not call.id.index.notice
    for policy in policies if counts else ():
        rules = policy.spec.rules
        for index, limit in enumerate(rules.limits if rules else ()):
            if limit.tool != call.target or limit.function not in (None, call.function) or limit.calls_per_run is None:
                continue
            what = f"{limit.tool}.{limit.function}" if limit.function else limit.tool
            count = sum(n for name, n in made.items() if what in (name, name.partition(".")[0]))
            if count >= limit.calls_per_run:
                yield _breach(policy, f"limits[{index}]", f"{count} of {limit.calls_per_run} calls of {what} are made")


def scope_of(
    call: Call,
    state: RunState,
    *,
    account: str,
    function: Function | None,
    effect: str,
    model: Model | None,
    labels: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return what the expressions of rules read about a call."""
    kind, request = _KINDS[call.kind], call.request
    given = request.get("arguments", {})
    arguments = function.sent(given) if function is not None and isinstance(given, dict) else given
    most = model.spec.limits.max_output_tokens if model is not None and model.spec.limits is not None else None
    accepted = state.accepted
    return {
        "call": {
            "kind": kind,
            "model": call.target if kind == "model" else "",
            "tool": call.target if kind == "tool" else "",
            "workflow": call.target if kind == "workflow" else "",
            "image": call.target if kind == "container" else "",
            "function": call.function,
            "effect": effect,
            "arguments": arguments,
            "parameters": {"maxOutputTokens": most} | dict(request.get("parameters") or {}),
            "input": request.get("input", {}),
            "path": call.id.path,
        },
        "run": {
            "name": accepted.name if accepted else "",
            "uid": state.run_uid,
            "account": account,
            "requestedBy": (accepted.requested_by if accepted else None) or "",
        },
        "workflow": {"name": accepted.workflow if accepted else "", "labels": dict(labels or {})},
    }


def problems(policy: Policy) -> list[Finding]:
    """Return what is wrong with a Policy's rules, whatever they are held against."""
    rules = policy.spec.rules
    if rules is None:
        return []
    found: list[Finding] = []
    for index, rule in enumerate(rules.calls):
        found += _unreadable_names(f"spec.rules.calls[{index}].when", [rule.when], NAMES, wanted="boolean")
    for path, notify in _notices(policy):
        found += _notice_problems(f"{path}.arguments", notify)
    return found


def notices(policies: Iterable[Policy]) -> Iterator[ToolCall]:
    """Yield the calls that rules make in a run's name to tell people; its account needs their functions."""
    for policy in policies:
        if policy.spec.mode != "Audit":
            yield from (notify for _, notify in _notices(policy))


def _notices(policy: Policy) -> Iterator[tuple[str, ToolCall]]:
    rules = policy.spec.rules
    if rules is None:
        return
    asking = [(f"calls[{index}]", rule.approval) for index, rule in enumerate(rules.calls)]
    asking.append(("dataFlow", rules.data_flow.approval if rules.data_flow is not None else None))
    for path, terms in asking:
        if terms is not None and terms.notify is not None:
            yield f"spec.rules.{path}.approval.notify", terms.notify


def _notice_problems(path: str, notify: ToolCall) -> list[Finding]:
    try:
        return _unreadable_names(path, expressions_in(notify.arguments), NOTICE_NAMES)
    except ExpressionError as error:
        return [Finding(path, error.message)]


def _unreadable_names(
    path: str, expressions: Iterable[str], names: Mapping[str, frozenset[str]], *, wanted: str = ""
) -> list[Finding]:
    found = []
    for expression in expressions:
        try:
            references = compile_expression(expression).references
        except ExpressionError as error:
            found.append(Finding(path, error.message))
            continue
        for reference in references:
            if reference.root not in names:
                found.append(Finding(path, f"there is no '{reference.root}'; there are {', '.join(names)}"))
            elif reference.members and reference.members[0] not in names[reference.root]:
                known = ", ".join(sorted(names[reference.root]))
                found.append(Finding(path, f"'{reference.root}' has no '{reference.members[0]}'; it has {known}"))
        if wanted and (problem := unlike(judge(expression, ())[0], wanted)):
            found.append(Finding(path, problem))
    return found


def is_stand_in(policy: Policy) -> bool:
    """Tell whether this is what `unreadable` made."""
    rules = policy.spec.rules
    return rules is not None and [rule.name for rule in rules.calls] == [UNREADABLE] and rules.calls[0].when == "true"


def unreadable(obj: Mapping[str, Any]) -> Policy | None:
    """Return what stands in for a Policy that this version does not understand: it denies every call and every host.

    None where there is nothing to deny by: without rules, or in Audit mode.
    """
    spec = obj.get("spec") or {}
    if not spec.get("rules") or spec.get("mode") == "Audit":
        return None
    rule = {"name": UNREADABLE, "when": "true", "message": "this version of Fairlead does not understand the Policy"}
    return Policy.model_validate(
        {"metadata": obj["metadata"], "spec": {"rules": {"calls": [rule], "egress": {"hosts": []}}}}
    )


def still_holds(obj: Mapping[str, Any], last: Policy | None) -> Policy | None:
    """Return what holds of a Policy that this version does not understand: the last one that it did, if it did.

    A mistake neither opens nor closes anything, but rules that nobody can read are not none: where the last one
    enforces none, and the new one is to, every call is denied. What was granted stays.
    """
    stand_in = unreadable(obj)
    if last is None or stand_in is None:
        return stand_in if last is None else last
    if last.spec.rules not in (None, Rules()) and last.spec.mode != "Audit":
        return last
    return stand_in.model_copy(update={"spec": stand_in.spec.model_copy(update={"grants": last.spec.grants})})


def _selects(policy: Policy, labels: Mapping[str, str] | None) -> bool:
    selector = policy.spec.applies_to
    if selector is None or labels is None:
        return True
    return all(labels.get(key) == value for key, value in selector.workflows.match_labels.items())


def _breach(policy: Policy, rule: str, message: str) -> Breach:
    return Breach(policy.metadata.name, rule, message, enforced=policy.spec.mode != "Audit")
