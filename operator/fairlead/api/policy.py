"""Policy: grants that become RBAC, and rules that hold at every call.

Whoever may write Policies with grants hands out AI permissions. Rules only take away, but for `notify`, a call that
runs then make: whoever writes either needs `grant` on the Policy.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.approval import ApprovalTerms
from fairlead.api.container import ImagePattern
from fairlead.api.meta import (
    ATOMIC,
    LIST_SET,
    AccountName,
    ApiModel,
    CelRule,
    Conditions,
    Cost,
    Decimal,
    Expression,
    FunctionName,
    Identifier,
    Kind,
    ObjectName,
    ObservedGeneration,
    PrinterColumn,
    Quantity,
    Resource,
    Timestamp,
    list_map,
)


class ToolGrant(ApiModel):
    """A Tool, whole or some of its functions."""

    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    functions: Annotated[
        list[FunctionName] | None,
        Field(
            min_length=1,
            max_length=200,
            description="These functions of the Tool. Absent: every function of its contract.",
            json_schema_extra=ATOMIC,
        ),
    ] = None


class Grants(ApiModel):
    """What these accounts may invoke: one Role and one RoleBinding."""

    service_accounts: Annotated[
        list[AccountName],
        Field(
            min_length=1,
            max_length=50,
            description="Whose rights these are. Accounts that do not exist are created.",
            json_schema_extra=LIST_SET,
        ),
    ]
    tools: Annotated[
        list[ToolGrant],
        Field(max_length=200, description="Tools whose functions they may call.", json_schema_extra=list_map("tool")),
    ] = []
    models: Annotated[
        list[ObjectName],
        Field(max_length=200, description="Models that they may call.", json_schema_extra=LIST_SET),
    ] = []
    workflows: Annotated[
        list[ObjectName],
        Field(max_length=200, description="Workflows that they may start.", json_schema_extra=LIST_SET),
    ] = []
    images: Annotated[
        list[ImagePattern],
        Field(
            max_length=200,
            description="Images that their container steps may run: as they are written there, or with @sha256:* for "
            "any digest.",
            json_schema_extra=LIST_SET,
        ),
    ] = []


class LabelSelector(ApiModel):
    """Objects with all of these labels."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(min_length=1, max_length=20, description="Labels and their values; all of them."),
    ]


class AppliesTo(ApiModel):
    """Whose runs the rules bind."""

    workflows: LabelSelector


class CallRule(ApiModel):
    """What no call may be, or may be only when people approve it."""

    cel: ClassVar = (
        CelRule(
            "has(self.approval) == (has(self.then) && self.then == 'RequireApproval')",
            "approval says who must approve: it goes with `then: RequireApproval`",
            ".approval",
        ),
    )
    name: Annotated[Identifier, Field(description="Told to people when the rule denies.")]
    when: Annotated[
        Expression,
        Field(
            description="CEL over `call`, `run` and `workflow`: the rule is about the calls for which it holds. "
            "Where it has no value the call is denied."
        ),
    ]
    then: Annotated[
        Literal["Deny", "RequireApproval"],
        Field(
            description="Deny (the default), or RequireApproval: it happens once people have approved this very call."
        ),
    ] = "Deny"
    approval: ApprovalTerms | None = None
    message: Annotated[str, Field(max_length=256, description="Why, for people. A model never learns it.")] = ""


class CallLimit(ApiModel):
    """How often a Tool or one of its functions may be called."""

    cel: ClassVar = (
        CelRule(
            "has(self.callsPerRun) || has(self.ratePerMinute)", "say at least one of callsPerRun and ratePerMinute"
        ),
    )
    tool: Annotated[ObjectName, Field(description="The Tool's name.")]
    function: Annotated[FunctionName | None, Field(description="Absent: all of its functions together.")] = None
    calls_per_run: Annotated[int | None, Field(ge=0, le=100_000, description="So many calls in a run; 0 for none.")] = (
        None
    )
    rate_per_minute: Annotated[
        int | None,
        Field(ge=1, le=100_000, description="So many calls a minute, of all runs of the namespace; more wait."),
    ] = None


class RunBudget(ApiModel):
    """What one run may use, beside its Workflow's own limits; the smallest counts."""

    tokens: Annotated[int | None, Field(ge=0, le=10**12, description="Tokens in and out.")] = None
    cost_usd: Annotated[
        Decimal | None, Field(alias="costUSD", description='US dollars by the prices of the Models, as "0.50".')
    ] = None
    model_calls: Annotated[int | None, Field(ge=0, le=1_000_000, description="Calls to Models.")] = None
    tool_calls: Annotated[int | None, Field(ge=0, le=1_000_000, description="Calls to Tools, and child runs.")] = None


class WindowBudget(ApiModel):
    """What all runs that are bound may use together in a stretch of time; then the next stretch begins."""

    cel: ClassVar = (
        CelRule(
            "has(self.tokens) || has(self.costUSD) || has(self.runs)", "set at least one of tokens, costUSD and runs"
        ),
    )
    period_seconds: Annotated[
        int,
        Field(
            ge=60, le=31_536_000, description="How long a stretch is; they begin at multiples of it since 1970, UTC."
        ),
    ]
    tokens: Annotated[int | None, Field(ge=0, le=10**12, description="Tokens in and out.")] = None
    cost_usd: Annotated[
        Decimal | None, Field(alias="costUSD", description='US dollars by the prices of the Models, as "20.00".')
    ] = None
    runs: Annotated[
        int | None, Field(ge=0, le=10_000_000, description="Runs that begin; one more ends as BudgetExceeded.")
    ] = None


class Budgets(ApiModel):
    """What may be used up. A call needs room for the most that it can come to."""

    cel: ClassVar = (CelRule("has(self.run) || has(self.window)", "set run, window, or both"),)
    run: RunBudget | None = None
    window: WindowBudget | None = None
    unknown_price: Annotated[
        Literal["Deny", "Free"] | None,
        Field(
            description="Where costUSD is set, what becomes of calls of a Model with an endpoint and no price. Deny: "
            "they are denied (the default). Free: they count as nothing."
        ),
    ] = None


class DataFlow(ApiModel):
    """What may become of data. Labels follow what steps read, by themselves; see docs/data-flow.md."""

    cel: ClassVar = (
        CelRule(
            "has(self.approval) == (self.untrustedToExternal == 'RequireApproval')",
            "approval says who must approve: it goes with `untrustedToExternal: RequireApproval`",
            ".approval",
        ),
    )
    untrusted_to_external: Annotated[
        Literal["Deny", "RequireApproval"],
        Field(
            description="What becomes of a call of a Tool that reaches outside or cannot be undone, when what led to "
            "it holds both something untrusted and something confidential."
        ),
    ]
    approval: ApprovalTerms | None = None
    static: Annotated[
        Literal["Enforce", "Warn"] | None,
        Field(
            description="What becomes of Workflows in which that may happen, before anything runs. Enforce: no run is "
            "accepted. Warn: their condition DataFlowSafe says so (the default)."
        ),
    ] = None


class Egress(ApiModel):
    """Where Tools and Models that Fairlead does not run may be."""

    hosts: Annotated[
        list[Annotated[str, Field(max_length=260, pattern=r"^[a-z0-9.:\[\]-]+:[0-9]{1,5}$")]],
        Field(max_length=100, description="host:port, lower case, whole. Empty: nowhere.", json_schema_extra=ATOMIC),
    ]


class MaxResources(ApiModel):
    """The most that the container of one step may ask for."""

    cpu: Annotated[Quantity | None, Field(description="CPU.")] = None
    memory: Annotated[Quantity | None, Field(description="Memory.")] = None


class ContainerRules(ApiModel):
    """What container steps may be."""

    runtime_class_names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=253)]] | None,
        Field(
            max_length=20,
            description="A step must name one of these RuntimeClasses. Absent: any, or none.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    max_resources: MaxResources | None = None


class Rules(ApiModel):
    """What holds at every call of the runs that are bound. What is absent forbids nothing."""

    calls: Annotated[
        list[CallRule],
        Field(max_length=50, description="Calls that are denied, or need people.", json_schema_extra=list_map("name")),
    ] = []
    limits: Annotated[
        list[CallLimit], Field(max_length=50, description="How often functions are called.", json_schema_extra=ATOMIC)
    ] = []
    pins: Annotated[
        Literal["Required"] | None,
        Field(description="Required: a function without a pin cannot be called. Whose pin does not fit never can."),
    ] = None
    budgets: Budgets | None = None
    data_flow: DataFlow | None = None
    egress: Egress | None = None
    containers: ContainerRules | None = None


class PolicySpec(ApiModel):
    """What the Policy gives, and what it forbids."""

    cel: ClassVar = (
        CelRule(
            "!(has(self.appliesTo) || has(self.mode)) || has(self.rules)",
            "appliesTo and mode are about `rules`, which are missing; grants name their accounts",
            ".rules",
        ),
    )
    grants: Grants | None = None
    applies_to: Annotated[
        AppliesTo | None, Field(description="The Workflows whose runs the rules bind. Absent: all of the namespace.")
    ] = None
    mode: Annotated[
        Literal["Enforce", "Audit"] | None,
        Field(description="Enforce (the default), or Audit: what the rules would deny is recorded and happens."),
    ] = None
    rules: Rules | None = None


class PolicyCalls(ApiModel):
    """What its rules did about calls since the Policy exists; a crash may lose those of its last seconds."""

    denied: Annotated[int, Field(ge=0, description="Calls that were denied.")] = 0
    would_deny: Annotated[int, Field(ge=0, description="Calls and runs, recorded in Audit mode, that happened.")] = 0
    asked: Annotated[int, Field(ge=0, description="Calls that were given to people.")] = 0


class WindowUse(ApiModel):
    """What was used of the window's budget; what calls that are under way can come to is counted as used."""

    ends_at: Annotated[Timestamp, Field(description="When the next window begins.")]
    tokens: Annotated[int, Field(ge=0, description="Tokens in and out.")] = 0
    cost_usd: Annotated[Cost, Field(alias="costUSD", description="US dollars.")] = "0"
    runs: Annotated[int, Field(ge=0, description="Runs that began.")] = 0


class PolicyStatus(ApiModel):
    """Written by the operator (Ready, Stalled, observedGeneration) and the engine (Enforced, calls)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    calls: PolicyCalls | None = None
    window: WindowUse | None = None


class Policy(Resource):
    """Grants for workflows' accounts, and rules for their runs."""

    crd: ClassVar = Kind(
        kind="Policy",
        plural="policies",
        short_names=("pol",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Enforced", ".status.conditions[?(@.type=='Enforced')].reason"),
            PrinterColumn("Denied", ".status.calls.denied", "integer"),
            PrinterColumn("Accounts", ".spec.grants.serviceAccounts"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: PolicySpec
    status: PolicyStatus | None = None
