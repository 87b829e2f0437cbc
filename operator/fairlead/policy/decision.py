"""A decision and what it depends on. `decide.py` is the function between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fairlead.api.model import Model
from fairlead.api.policy import CallRule, Policy
from fairlead.api.reasons import DecisionReason, Stage
from fairlead.api.steps import StepLimits
from fairlead.api.tool import Tool
from fairlead.api.workflow import Limits, Workflow
from fairlead.flow.labels import TRUSTED, Label
from fairlead.flow.runstate import ApprovalState, Usage
from fairlead.flow.spending import NOTHING, Spend, Window
from fairlead.policy.images import Image
from fairlead.policy.permission import Permission


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the authorizer said about the call's permissions.

    Attributes:
        verdict: Allowed, Denied, or Unavailable - which is neither.
        missing: on Denied, the permission to grant.
        message: what the authorizer said of it, if anything, such as which binding allows it.
    """

    verdict: Literal["Allowed", "Denied", "Unavailable"]
    missing: Permission | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class RunUsage:
    """What the run has used and has in flight when the call is decided."""

    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    cost: int = 0
    held_tokens: int = 0
    held_cost: int = 0


@dataclass(frozen=True, slots=True)
class Loop:
    """A forEach with limits around the call: where it stands, its limits, and what its items used."""

    path: str
    limits: StepLimits
    used: Usage


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the request cannot go to its destination: EgressDenied, CredentialMissing or CredentialPending."""

    reason: DecisionReason
    message: str


@dataclass(frozen=True, slots=True)
class Definitions:
    """What the Tool's server says now that its functions are: a digest each. None when nobody knows, and why."""

    digests: Mapping[str, str] | None = None
    message: str = ""


def spoken(policy: str) -> str:
    """Return a Policy's name as people say it; the name of a ClusterPolicy's copy begins with its kind."""
    return policy.replace("/", " ") if "/" in policy else f"Policy {policy}"


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule of a Policy that a call would break. Only what is `enforced` decides."""

    policy: str
    rule: str
    message: str
    enforced: bool

    def __str__(self) -> str:
        said = f": {self.message}" if self.message else ""
        return f"{spoken(self.policy)}, rule {self.rule}{said}"


RuleKey = tuple[str, str, str]
"""A Policy, where in its rules, and the name there."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A rule of a Policy that lets a call happen only when people approve it."""

    policy: str
    rule: CallRule
    where: Literal["calls", "dataFlow"] = "calls"

    @property
    def key(self) -> RuleKey:
        """Return what the rule is known by."""
        return self.policy, self.where, self.rule.name

    def __str__(self) -> str:
        said = f": {self.rule.message}" if self.rule.message else ""
        return f"{spoken(self.policy)}, rule {self.rule.name}{said}"


@dataclass(frozen=True, slots=True)
class Asked:
    """The Approval by which people were asked about a call, and the rule of a Policy that let them be asked."""

    policy: str
    rule: str
    name: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that stages 4 to 10 look at, read at one moment.

    Attributes:
        namespace: where the run is.
        account: the ServiceAccount that the run acts as.
        model: the Model that is called, None if there is none of that name.
        tool: the Tool that is called, None if there is none of that name.
        workflow: the Workflow that is called, None if there is none of that name.
        definitions: of a pinned function, how its server defines it now.
        authorization: what the authorizer said.
        limits: the run's bounds.
        usage: what it used so far.
        need: the most that a model call can come to.
        loops: what limits it beside the run: each forEach around it.
        windows: of the Policies that share a budget among runs: what was used in the window that it is now.
        minute_tokens: what calls of the same Model used, or can come to, within the last minute.
        label: of everything that led to the call.
        repeats: how often this very call (same target, function and arguments) was made in this attempt already.
        others: of what a container asks for: how many other calls its attempt has on record.
        rates: how often the same Tool (by function) or Model was called within the last minute, by all runs.
        image: what a container call runs, None where no pods can be made.
        image_granted: whether a Policy grants it to the account.
        image_tags: whether images without a digest may run.
        host: `host:port` of the Tool or Model that is called; "" of a server that Fairlead runs.
        obstacle: what stands between the call and its destination, None if the way is free.
        policies: those whose rules bind the run, by name.
        policies_known: False while the operator has not said which ClusterPolicies bind the namespace.
        scope: what the expressions of rules read.
        made: how many calls the run has made to each `tool.function`.
        approvals: by policy and rule, what people were asked about this very call - the same request, to what stands
            there now, for the rule as it is now.
    """

    namespace: str
    account: str
    model: Model | None = None
    tool: Tool | None = None
    workflow: Workflow | None = None
    definitions: Definitions = field(default_factory=Definitions)
    authorization: Authorization = field(default_factory=lambda: Authorization("Unavailable"))
    limits: Limits = field(default_factory=Limits)
    usage: RunUsage = field(default_factory=RunUsage)
    need: Spend = NOTHING
    loops: Sequence[Loop] = ()
    windows: Mapping[Window, Usage] = field(default_factory=dict)
    minute_tokens: int = 0
    label: Label = TRUSTED
    repeats: int = 0
    others: int = 0
    rates: Mapping[str, int] = field(default_factory=dict)
    image: Image | None = None
    image_granted: bool = False
    image_tags: bool = False
    host: str = ""
    obstacle: Obstacle | None = None
    policies: Sequence[Policy] = ()
    policies_known: bool = True
    scope: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    approvals: Mapping[RuleKey, ApprovalState] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow, Deny with exactly one reason, or Wait (no answer of the authorizer, or people are asked).

    `audited` is what Policies in Audit mode would have denied, `needs` what people were not asked for yet, `policy` the
    one whose `rule` stands in the way (of the run's own limits the rule alone), `loop` the forEach whose limit does,
    and that limit. An allowed call is to be recorded with what it `holds`, in these `windows`. `rbac` is what the
    authorizer said, `approvals` are those that people have decided about.
    """

    verdict: Literal["Allow", "Deny", "Wait"]
    stage: Stage
    reason: DecisionReason = DecisionReason.ALLOWED
    message: str = ""
    audited: tuple[Breach, ...] = ()
    needs: tuple[Requirement, ...] = ()
    policy: str = ""
    rule: str = ""
    loop: tuple[str, str] = ("", "")
    holds: Spend = NOTHING
    windows: tuple[Window, ...] = ()
    rbac: str = ""
    approvals: tuple[Asked, ...] = ()
