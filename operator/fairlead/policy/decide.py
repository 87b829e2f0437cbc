"""May this call happen? Stages 4 to 10 of the decision order, as one pure function.

The gate (engine/gate.py) reads a snapshot and asks; nothing is looked up here, so the same call and snapshot always
give the same decision. Each stage is a small function that either decides or has no objection (None). The order of
`STAGES` is part of the contract: which reason a denied call gets depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Literal

from fairlead.api.model import Model
from fairlead.api.reasons import DecidedReason, DecisionReason, Stage
from fairlead.api.tool import Function, Tool
from fairlead.api.workflow import Workflow
from fairlead.flow.approvals import REFUSALS, decision_of, lacks_requester
from fairlead.flow.calls import Call, CallKind
from fairlead.flow.schema import findings
from fairlead.policy.budgets import bounds, run_budgets, unpriced
from fairlead.policy.decision import Asked, Breach, Decision, Requirement, Snapshot
from fairlead.policy.flows import flow_approvals, flow_breaches
from fairlead.policy.images import Image, not_granted
from fairlead.policy.permission import Permission, function_permission, model_permission, workflow_permission
from fairlead.policy.pins import drift, pin_rules
from fairlead.policy.places import container_rules, egress_rules
from fairlead.policy.rates import exceeded, rate_rules, tokens_exceeded, too_large
from fairlead.policy.rules import call_approvals, call_limits, call_rules

IDENTICAL_CALLS = 3
"""An agent's attempt that makes the same call of a function or Workflow for this time is in a loop."""

MODEL_API = {CallKind.CHAT: "OpenAIChat", CallKind.EMBED: "OpenAIEmbeddings"}


def decide(call: Call, snapshot: Snapshot) -> Decision:
    """Return what stages 4 to 10 say: the first objection, or Allow when no stage has one."""
    for stage in STAGES:
        objection = stage(call, snapshot)
        if objection is not None:
            known = objection.stage > Stage.CONTRACT and snapshot.authorization.verdict != "Unavailable"
            asked = _asked(snapshot) if objection.stage is Stage.APPROVAL else ()
            return replace(objection, rbac=snapshot.authorization.message if known else "", approvals=asked)
    return Decision(
        "Allow",
        Stage.APPROVAL,
        holds=snapshot.need,
        windows=tuple(snapshot.windows),
        rbac=snapshot.authorization.message,
        approvals=_asked(snapshot),
    )


def required_permissions(call: Call) -> tuple[Permission, ...]:
    """Return what the call needs: any one of these. Images are no RBAC: nothing, stage 6 asks for their grant."""
    if call.kind is CallKind.TOOL:
        return function_permission(call.target, call.function)
    if call.kind is CallKind.WORKFLOW:
        return workflow_permission(call.target)
    if call.kind is CallKind.CONTAINER:
        return ()
    return model_permission(call.target)


def find_function(tool: Tool, name: str) -> Function | None:
    """Return the contract of a function, None if the Tool has none of this name."""
    return next((function for function in tool.spec.functions if function.name == name), None)


def called_function(call: Call, tool: Tool | None) -> Function | None:
    """Return the contract of the function that is called, None if it has none or the call is of another kind."""
    return find_function(tool, call.function) if tool is not None and call.kind is CallKind.TOOL else None


def would_deny(call: Call, snapshot: Snapshot) -> list[Breach]:
    """Return what Policies in Audit mode find; it decides nothing."""
    audited = tuple(policy for policy in snapshot.policies if policy.spec.mode == "Audit")
    if not audited:
        return []
    snapshot = replace(snapshot, policies=audited)
    found = chain(
        call_rules(call, snapshot.scope, snapshot.policies),
        pin_rules(called_function(call, snapshot.tool), snapshot.policies),
        egress_rules(snapshot.host, snapshot.policies),
        container_rules(call, snapshot.policies),
        flow_breaches(snapshot.label, called_function(call, snapshot.tool), snapshot.policies),
        call_limits(call, snapshot.made, snapshot.policies),
        rate_rules(call, snapshot.rates, snapshot.policies),
        unpriced(call, snapshot),
        run_budgets(call, snapshot),
    )
    return [breach for breach in found if not breach.enforced]


def requirements(call: Call, snapshot: Snapshot) -> Iterator[Requirement]:
    """Yield the rules that let a call happen only when people approve it."""
    yield from call_approvals(call, snapshot.scope, snapshot.policies)
    yield from flow_approvals(snapshot.label, called_function(call, snapshot.tool), snapshot.policies)


def contract(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 4: what is called exists, can do this, was offered, is what was pinned, and the arguments fit."""
    match call.kind:
        case CallKind.TOOL:
            return _tool_contract(call, snapshot)
        case CallKind.WORKFLOW:
            problem = _workflow_problem(call, snapshot.workflow)
        case CallKind.CONTAINER:
            problem = _image_problem(snapshot)
        case _:
            problem = _model_problem(call, snapshot.model)
    return _deny(Stage.CONTRACT, DecisionReason.INVALID, problem) if problem else None


def rbac(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 5: the run's account has the permission. No answer is neither yes nor no: the call waits."""
    authorization = snapshot.authorization
    if not required_permissions(call):
        return None
    if authorization.verdict == "Allowed":
        return None
    if authorization.verdict == "Denied":
        return _deny(Stage.RBAC, DecisionReason.FORBIDDEN, _missing(call, snapshot))
    message = authorization.message or "the authorizer does not answer"
    return Decision("Wait", Stage.RBAC, DecisionReason.AUTHORIZER_UNAVAILABLE, message)


def rules(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 6: no Policy's rule denies the call, and the way to its destination is free."""
    if not snapshot.policies_known:
        unknown = "the operator has not said yet which ClusterPolicies bind this namespace"
        return Decision("Wait", Stage.RULES, DecisionReason.POLICIES_UNKNOWN, unknown)
    if call.kind is CallKind.CONTAINER and not snapshot.image_granted:
        missing = not_granted(Image(call.target), snapshot.account)
        return _deny(Stage.RULES, DecisionReason.FORBIDDEN, missing)
    pins = pin_rules(called_function(call, snapshot.tool), snapshot.policies)
    places = chain(egress_rules(snapshot.host, snapshot.policies), container_rules(call, snapshot.policies))
    broken = _enforced(chain(call_rules(call, snapshot.scope, snapshot.policies), pins, places))
    if broken is not None:
        return _broken(Stage.RULES, DecisionReason.POLICY_DENIED, broken)
    if snapshot.obstacle is None:
        return _definition_unknown(call, snapshot)
    reason, message = snapshot.obstacle.reason, snapshot.obstacle.message
    if reason is DecisionReason.CREDENTIAL_PENDING:
        return Decision("Wait", Stage.RULES, reason, message)
    return _deny(Stage.RULES, reason, message)


def data_flow(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 7: what holds something untrusted and something confidential does not leave by itself."""
    function = called_function(call, snapshot.tool)
    broken = _enforced(flow_breaches(snapshot.label, function, snapshot.policies))
    return _broken(Stage.DATA_FLOW, DecisionReason.FLOW_DENIED, broken) if broken is not None else None


def limits(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 8: an agent does not make the very same call again and again, no Policy's limit is used up, no rate is.

    Who comes too early for a rate waits; who is the same call again, or one too many, does not.
    """
    if call.kind not in MODEL_API and snapshot.repeats >= IDENTICAL_CALLS - 1:
        name = f"{call.target}.{call.function}" if call.function else call.target
        made = f"{name} was called {snapshot.repeats} times with the same arguments"
        return _deny(Stage.LIMITS, DecisionReason.LOOP_DETECTED, made)
    if call.pod is not None and snapshot.others >= call.pod.most:
        most = f"container.maxCalls: {call.pod.most} calls were made"
        return _deny(Stage.LIMITS, DecisionReason.BUDGET_EXCEEDED, most)
    broken = _enforced(call_limits(call, snapshot.made, snapshot.policies))
    if broken is not None:
        return _broken(Stage.LIMITS, DecisionReason.POLICY_DENIED, broken)
    model = snapshot.model
    if model is not None and (never := too_large(model, snapshot.need)):
        return _deny(Stage.LIMITS, DecisionReason.BUDGET_EXCEEDED, never)
    early = exceeded(call, snapshot.tool or model, snapshot.rates)
    early = early or (tokens_exceeded(model, snapshot.minute_tokens, snapshot.need) if model is not None else "")
    ruled = _enforced(rate_rules(call, snapshot.rates, snapshot.policies))
    if early:
        return Decision("Wait", Stage.LIMITS, DecisionReason.RATE_LIMITED, early)
    return _broken(Stage.LIMITS, DecisionReason.RATE_LIMITED, ruled, "Wait") if ruled is not None else None


def budget(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 9: the run's own limits, those of the loops around, and the budgets of Policies have room for the call.

    While only calls that are under way stand in the way, it waits for what they come to.
    """
    if call.kind is CallKind.WORKFLOW and snapshot.limits.depth == 0:
        message = "limits.depth: no further level of child runs is left"
        return _deny(Stage.BUDGET, DecisionReason.BUDGET_EXCEEDED, message)
    no_price = _enforced(unpriced(call, snapshot))
    if no_price is not None:
        return _broken(Stage.BUDGET, DecisionReason.BUDGET_EXCEEDED, no_price)
    tight = [bound for bound in bounds(call, snapshot) if bound.enforced and bound.room != "Enough"]
    for bound in tight:
        if bound.room == "Never":
            said = str(bound.breach()) if bound.policy else str(bound)
            decision = _deny(Stage.BUDGET, DecisionReason.BUDGET_EXCEEDED, said)
            return replace(decision, policy=bound.policy, rule=bound.name, loop=bound.loop)
    if not tight:
        return None
    first = tight[0]
    waits = Decision("Wait", Stage.BUDGET, DecisionReason.BUDGET_EXCEEDED, str(first))
    return replace(waits, policy=first.policy, rule=first.name)


def approval(call: Call, snapshot: Snapshot) -> Decision | None:
    """Stage 10: everybody has approved whom a rule asks. Until they have, the call waits."""
    missing: list[Requirement] = []
    pending = ""
    waits_for_nobody = call.pod is not None or call.tells
    if waits_for_nobody and (first := next(requirements(call, snapshot), None)) is not None:
        who = "a container" if call.pod is not None else "a notice"
        alone = f"{first}; people must approve, and {who} cannot wait for them"
        return _required(DecisionReason.POLICY_DENIED, alone, first)
    for needed in requirements(call, snapshot):
        assert needed.rule.approval is not None
        known = snapshot.approvals.get(needed.key)
        if lacks_requester(needed.rule.approval, snapshot.scope["run"]["requestedBy"]):
            unknown = f"{needed}; somebody else than the requester must approve, and the run has no requestedBy"
            return _required(DecisionReason.REQUESTER_UNKNOWN, unknown, needed)
        if known is None:
            missing.append(needed)
        elif known.decision in REFUSALS:
            return _deny(Stage.APPROVAL, REFUSALS[known.decision], f"{needed}; {decision_of(known)}")
        if known is None or known.decision != DecidedReason.APPROVED:
            pending = pending or f"{needed}; people must approve"
    if not pending:
        return None
    return Decision("Wait", Stage.APPROVAL, DecisionReason.APPROVAL_PENDING, pending, needs=tuple(missing))


STAGES: tuple[Callable[[Call, Snapshot], Decision | None], ...] = (
    contract,
    rbac,
    rules,
    data_flow,
    limits,
    budget,
    approval,
)
"""Stages 4, 5, 6, 7, 8, 9, 10. A rule that is added later goes into its stage; the order never changes."""


def _model_problem(call: Call, model: Model | None) -> str:
    if model is None:
        return f"there is no Model {call.target}"
    if not call.offered:
        return f"the step does not offer Model {call.target}"
    if model.spec.api != MODEL_API[call.kind]:
        return f"Model {call.target} speaks {model.spec.api}, a {call.kind} call needs {MODEL_API[call.kind]}"
    return ""


def _tool_contract(call: Call, snapshot: Snapshot) -> Decision | None:
    function, problem = called_function(call, snapshot.tool), ""
    if snapshot.tool is None:
        problem = f"there is no Tool {call.target}"
    elif function is None:
        problem = f"{call.function} is not in the contract of Tool {call.target}"
    elif not call.offered:
        problem = f"the step does not offer {call.target}.{call.function}"
    if problem or function is None:
        return _deny(Stage.CONTRACT, DecisionReason.INVALID, problem)
    digests = snapshot.definitions.digests
    drifted = drift(function, digests) if digests is not None else ""
    if drifted:
        return _deny(Stage.CONTRACT, DecisionReason.TOOL_DRIFT, f"Tool {call.target}: {drifted}")
    problem = _argument_problem(function, call.request.get("arguments"))
    return _deny(Stage.CONTRACT, DecisionReason.INVALID, problem) if problem else None


def _definition_unknown(call: Call, snapshot: Snapshot) -> Decision | None:
    """Return what stage 4 lacks of a pinned function. Its server is asked when all until here let the call pass."""
    function, known = called_function(call, snapshot.tool), snapshot.definitions
    if function is None or function.pin is None or known.digests is not None:
        return None
    why = known.message or "the server was not asked yet"
    unknown = f"{call.target}.{function.name} is pinned, and nobody knows how it is defined now: {why}"
    return Decision("Wait", Stage.CONTRACT, DecisionReason.DEFINITION_UNKNOWN, unknown)


def _workflow_problem(call: Call, workflow: Workflow | None) -> str:
    if workflow is None:
        return f"there is no Workflow {call.target}"
    if not isinstance(call.request.get("input"), dict):
        return "the input must be an object"
    schema = workflow.spec.input.schema_ if workflow.spec.input else None
    problems = findings(schema, call.request["input"]) if schema is not None else []
    return f"the input does not fit Workflow {call.target}: {'; '.join(problems)}" if problems else ""


def _image_problem(snapshot: Snapshot) -> str:
    image = snapshot.image
    if image is None:
        return "containers run on a cluster only"
    if not image.has_digest and not snapshot.image_tags:
        return f"{image.name} has no digest, and the Engine does not say security.imageTags: Allowed"
    if snapshot.account.startswith("fairlead-"):
        return "a container runs as the Workflow's account: set spec.serviceAccountName"
    return ""


def _argument_problem(function: Function, arguments: object) -> str:
    if not isinstance(arguments, dict):
        return "arguments must be an object"
    problems = [f"/{name}: the Tool sets it" for name in sorted((function.preset or {}).keys() & arguments.keys())]
    problems += findings(function.input.schema_, arguments) if function.input else []
    return f"arguments do not fit the contract: {'; '.join(problems)}" if problems else ""


def _enforced(breaches: Iterable[Breach]) -> Breach | None:
    return next((breach for breach in breaches if breach.enforced), None)


def _missing(call: Call, snapshot: Snapshot) -> str:
    needed = required_permissions(call)
    shown = snapshot.authorization.missing or needed[0]
    names = " or ".join(f"{permission.verb} on {permission.resource}/{permission.name}" for permission in needed)
    return f"{snapshot.account} needs {names}; see: {shown.can_i(snapshot.namespace, snapshot.account)}"


def _deny(stage: Stage, reason: DecisionReason, message: str) -> Decision:
    return Decision("Deny", stage, reason, message)


def _broken(
    stage: Stage, reason: DecisionReason, breach: Breach, verdict: Literal["Deny", "Wait"] = "Deny"
) -> Decision:
    return Decision(verdict, stage, reason, str(breach), policy=breach.policy, rule=breach.rule)


def _required(reason: DecisionReason, message: str, needed: Requirement) -> Decision:
    return Decision("Deny", Stage.APPROVAL, reason, message, policy=needed.policy, rule=needed.rule.name)


def _asked(snapshot: Snapshot) -> tuple[Asked, ...]:
    """Return what people were asked about this very call; of an allowed one all have approved."""
    return tuple(Asked(policy, rule, known.name) for (policy, _, rule), known in snapshot.approvals.items())
