"""What the decision about a call depends on, read at one moment: resources as last seen, and what the run has done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fairlead.api.model import Model
from fairlead.api.policy import Policy
from fairlead.api.reasons import DecisionReason, Stage
from fairlead.api.tool import Tool
from fairlead.api.toolcall import ToolCall
from fairlead.api.workflow import Limits, Workflow
from fairlead.engine.binding import labels_now, limits_of, policies_of, telling
from fairlead.engine.credentials import destination, known_secrets, scrub
from fairlead.engine.egress import declared_host
from fairlead.engine.metering import most
from fairlead.engine.recent import RecentCalls
from fairlead.engine.seams import Resources
from fairlead.errors import CredentialMissing, CredentialPending, EgressDenied
from fairlead.flow.approvals import request
from fairlead.flow.calls import Call, CallIndex, CallKind
from fairlead.flow.children import child_name
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.journal import Draft, Path
from fairlead.flow.labels import TRUSTED, WORST, Label, returned, written
from fairlead.flow.runstate import ApprovalState, Usage
from fairlead.flow.spending import NOTHING, Spend, Window
from fairlead.flow.state import CallState, repeats_of
from fairlead.flow.template import render
from fairlead.policy.budgets import windows_of
from fairlead.policy.decide import find_function, requirements
from fairlead.policy.decision import (
    Authorization,
    Decision,
    Definitions,
    Loop,
    Obstacle,
    Requirement,
    RuleKey,
    RunUsage,
    Snapshot,
)
from fairlead.policy.effects import effect_of
from fairlead.policy.images import Image, image_granted, tags_allowed
from fairlead.policy.rules import scope_of

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog
    from fairlead.engine.tools import ToolCaller

Target = Tool | Model | Workflow | Image


class Snapshots:
    """Reads them, and knows what the calls that this process has under way hold in each window."""

    def __init__(
        self,
        resources: Resources,
        tools: ToolCaller,
        recent: RecentCalls,
        clock: Callable[[], int],
        *,
        has_pods: bool = False,
    ) -> None:
        self._resources = resources
        self._tools = tools
        self._recent = recent
        self._clock = clock
        self._has_pods = has_pods
        self._in_flight: dict[Window, Spend] = {}

    def target(self, call: Call) -> Target | None:
        """Return what is called, None if there is none of that name."""
        match call.kind:
            case CallKind.TOOL:
                return self._resources.tools.get(call.target)
            case CallKind.WORKFLOW:
                return self._resources.workflows.get(call.target)
            case CallKind.CONTAINER:
                return Image(call.target) if self._has_pods else None
            case _:
                return self._resources.models.get(call.target)

    def of(self, log: RunLog, call: Call, authorization: Authorization, definitions: Definitions | None) -> Snapshot:
        """Return everything that stages 4 to 10 look at; without `definitions` with what is known of them."""
        target = self.target(call)
        used = log.state.usage
        policies = policies_of(log, self._resources)
        scope = self._scope(log, call) if policies else {}
        itself = 1 if recorded_call(log, call) is not None else 0  # a resumed call is in the counts already
        accepted = log.state.accepted
        label = call.label if accepted is not None and accepted.label is not None else WORST
        tools_itself, models_itself = (0, itself) if isinstance(target, Model) else (itself, 0)
        need = most(call, target) if isinstance(target, Model) else NOTHING
        snapshot = Snapshot(
            namespace=log.namespace,
            account=log.account,
            model=target if isinstance(target, Model) else None,
            tool=target if isinstance(target, Tool) else None,
            workflow=target if isinstance(target, Workflow) else None,
            definitions=definitions or self._known(call, target),
            authorization=authorization,
            limits=log.plan.limits,
            usage=RunUsage(
                model_calls=used.model_calls - models_itself,
                tool_calls=used.tool_calls - tools_itself,
                tokens=used.tokens,
                cost=used.cost,
                held_tokens=used.held_tokens,
                held_cost=used.held_cost,
            ),
            need=need,
            loops=_loops(log, call),
            windows=self._windows(log, policies) if need else {},
            minute_tokens=self._recent.tokens(call) if need else 0,
            label=label,
            repeats=repeats_of(log.state, call),
            others=_others(log, call),
            rates=self._recent.of(call) if not itself else {},
            image=target if isinstance(target, Image) else None,
            image_granted=isinstance(target, Image)
            and image_granted(self._resources.policies.values(), log.account, target),
            image_tags=tags_allowed(self._resources.engine),
            host=declared_host(target if isinstance(target, Tool | Model) else None),
            obstacle=self._obstacle(target),
            policies=policies,
            policies_known=self._resources.policies_known,
            scope=scope,
            made=_made(log, call, itself),
        )
        approvals = self._approvals(log, call, snapshot)
        return replace(snapshot, approvals=approvals) if approvals else snapshot

    def under_way(self, windows: Iterable[Window], spend: Spend) -> None:
        """Take note of what a call holds while it is under way."""
        for window in windows:
            self._in_flight[window] = self._in_flight.get(window, NOTHING) + spend

    def landed(self, windows: Iterable[Window], spend: Spend) -> None:
        """Take note that it is not any more: what it holds now, it has used."""
        for window in windows:
            left = self._in_flight.pop(window) - spend
            if left:
                self._in_flight[window] = left

    def limits(self, log: RunLog) -> Limits:
        """Return what the run may use, by itself and by the Policies that bind it."""
        return limits_of(log, self._resources)

    def _known(self, call: Call, target: Target | None) -> Definitions:
        function = find_function(target, call.function) if isinstance(target, Tool) else None
        if not isinstance(target, Tool) or function is None or function.pin is None:
            return Definitions()
        return self._tools.known(call.target, target)

    def brought(self, log: RunLog, call: Call) -> Label:
        """Return the label of what a call brings: of a Tool's function what the contract says, also of its errors."""
        target, accepted = self.target(call), log.state.accepted
        if not isinstance(target, Tool) or accepted is None or accepted.label is None:
            return TRUSTED
        return returned(find_function(target, call.function))

    def request(self, log: RunLog, call: Call, needed: Requirement, *, now_ms: int) -> Draft:
        """Return the entry that asks people about a call. It is good for this request, this contract and this rule."""
        target, terms = self.target(call), needed.rule.approval
        assert target is not None
        assert terms is not None
        effect, _ = effect_and_key(target, log, call)
        return request(
            log.state,
            call.id,
            terms,
            index=str(call.id.index),
            message=needed.rule.message or f"may {call.kind} {call.target} {call.function}".rstrip() + " be called?",
            now_ms=now_ms,
            binds={
                "call": call.digest,
                "target": {"image": target.name} if isinstance(target, Image) else target.spec.model_dump(mode="json"),
                "rule": needed.rule.model_dump(mode="json", exclude={"approval": {"notify"}}),
            },
            call={"kind": call.kind.value, "target": call.target, "effect": effect, "arguments": self._shown(call)}
            | ({"function": call.function} if call.function else {})
            | written(call.label),
            rule={"policy": needed.policy, "rule": needed.rule.name},
        )

    def questions(
        self, log: RunLog, call: Call, needs: Sequence[Requirement], *, now_ms: int
    ) -> list[Draft] | Decision:
        """Return what `request` does for each of these, with what tells people of it; a denial if that has no value."""
        found = []
        for needed in needs:
            asked, terms = self.request(log, call, needed, now_ms=now_ms), needed.rule.approval
            if terms is not None and terms.notify is not None:
                try:
                    notice = self._notice(log, call, asked.data["name"], terms.notify)
                except ExpressionError as error:
                    said, reason = f"{needed}; approval.notify.arguments: {error.message}", DecisionReason.POLICY_DENIED
                    return Decision("Deny", Stage.APPROVAL, reason, said, policy=needed.policy, rule=needed.rule.name)
                asked = replace(asked, data={**asked.data, **notice, **written(call.label)})
            found.append(asked)
        return telling(log, self._resources, found)

    def _notice(self, log: RunLog, call: Call, approval: str, notify: ToolCall) -> dict[str, Any]:
        scope = self._scope(log, call) | {"approval": {"name": approval}}
        return {
            "notice": render(notify.arguments, scope),
            "tells": {"tool": notify.tool, "function": notify.function},
        }

    def _approvals(self, log: RunLog, call: Call, snapshot: Snapshot) -> dict[RuleKey, ApprovalState]:
        """Return what people were asked about this very call: the digests of requests tell."""
        step = log.state.steps.get(call.id.path)
        if step is None or not step.approvals or self.target(call) is None:
            return {}
        asked = {approval.spec["digest"]: approval for approval in step.approvals.values()}
        digests = {
            needed.key: self.request(log, call, needed, now_ms=0).data["spec"]["digest"]
            for needed in requirements(call, snapshot)
        }
        return {key: asked[digest] for key, digest in digests.items() if digest in asked}

    def _windows(self, log: RunLog, policies: Sequence[Policy]) -> dict[Window, Usage]:
        """Return what was used in the windows of now; what is held by calls that are under way stands apart."""
        found = {}
        for window in windows_of(policies, self._clock()):
            row, held = log.spent(window), self._in_flight.get(window, NOTHING)
            settled = Usage(input_tokens=row.tokens - held.tokens, cost=row.cost - held.cost)
            settled.hold(held)
            found[window] = settled
        return found

    def _shown(self, call: Call) -> Any:
        """Return what people see of a request."""
        asked = call.request
        if call.kind is not CallKind.CONTAINER:  # of which people see the program too
            asked = asked.get("arguments", asked.get("input", asked))
        target = self.target(call)
        function = find_function(target, call.function) if isinstance(target, Tool) else None
        asked = function.sent(asked) if function is not None else asked
        return scrub(dict(asked), known_secrets(self._resources))

    def _scope(self, log: RunLog, call: Call) -> dict[str, Any]:
        """Return what the expressions of rules read about a call. Labels that the run was accepted with go before."""
        target, accepted = self.target(call), log.state.accepted
        effect = effect_and_key(target, log, call)[0] if target is not None else ""
        model = target if isinstance(target, Model) else None
        labels = {**(labels_now(log, self._resources) or {}), **(accepted.labels if accepted is not None else {})}
        function = find_function(target, call.function) if isinstance(target, Tool) else None
        more: dict[str, Any] = {"function": function, "effect": effect, "model": model, "labels": labels}
        return scope_of(call, log.state, account=log.account, **more)

    def _obstacle(self, target: Target | None) -> Obstacle | None:
        if isinstance(target, Image):
            security = self._resources.engine.security
            required = security is None or security.require_network_isolation == "Required"
            broken = self._resources.isolation_broken if required else ""
            return Obstacle(DecisionReason.NOT_ISOLATED, f"no container starts: {broken}") if broken else None
        if target is None or isinstance(target, Workflow):
            return None
        try:
            destination(self._resources, target)
        except (EgressDenied, CredentialMissing, CredentialPending) as error:
            return Obstacle(DecisionReason(error.reason), str(error))
        return None


def recorded_call(log: RunLog, call: Call) -> CallState | None:
    """Return what the journal says of this very call, None if it has no intent."""
    step = log.state.steps.get(call.id.path)
    return step.calls.get(str(call.id.index)) if step is not None and step.attempt == call.id.attempt else None


def effect_and_key(target: Target, log: RunLog, call: Call) -> tuple[str, str | None]:
    """Return what a call does at worst, and the key under which doing it twice is the same as once."""
    function = find_function(target, call.function) if isinstance(target, Tool) else None
    effect = effect_of(call, function)
    if isinstance(target, Workflow):
        return effect, child_name(log.uid, call)
    if function is None:  # a container's pod has its name of the call
        return effect, None
    recorded = recorded_call(log, call)
    known = recorded.key if recorded is not None else ""
    return effect, (known or call.idempotency_key(log.uid)) if function.idempotency is not None else None


def _others(log: RunLog, call: Call) -> int:
    """Return how many other calls an attempt's container has on record; its own one is none of them."""
    step = log.state.steps.get(call.id.path)
    if call.pod is None or step is None:
        return 0
    neither = (str(call.id.index), str(CallIndex()))
    return sum(index not in neither and not made.is_notice for index, made in step.calls.items())


def _loops(log: RunLog, call: Call) -> list[Loop]:
    """Return every forEach with limits around a call."""
    found, path = [], call.id.path
    at = path.find("[")
    while at >= 0:
        step = log.state.steps.get(Path(path[:at]))
        if step is not None and step.bounds is not None:
            found.append(Loop(step.path, step.bounds, step.used or Usage()))
        at = path.find("[", at + 1)
    return found


def _made(log: RunLog, call: Call, itself: int) -> Mapping[str, int]:
    """Return how often the run called each function, without a resumed call, which is in the counts already."""
    name = f"{call.target}.{call.function}"
    return {**log.state.made, name: log.state.made.get(name, 0) - 1} if itself and call.function else log.state.made
