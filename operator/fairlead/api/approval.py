"""Approval: a decision that people must take before a run goes on. Made by the engine, decided by people.

Everything in `spec` is what is asked and never changes; people only add to `spec.decisions`, each in their own name.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    LIST_SET,
    AccountName,
    ApiModel,
    CelRule,
    Conditions,
    Cost,
    Digest,
    ImageName,
    JsonObject,
    Kind,
    ObjectName,
    PrinterColumn,
    Resource,
    Timestamp,
    append_only,
    immutable,
)
from fairlead.api.toolcall import ToolCall

MAX_DECISIONS = 20

UserName = Annotated[str, Field(min_length=1, max_length=253)]


class Approvers(ApiModel):
    """People: who is one of the users or in one of the groups, as the API server knows them."""

    cel: ClassVar = (CelRule("has(self.users) || has(self.groups)", "set at least one of users and groups"),)
    users: Annotated[
        list[UserName] | None,
        Field(min_length=1, max_length=50, description="User names.", json_schema_extra=LIST_SET),
    ] = None
    groups: Annotated[
        list[UserName] | None,
        Field(min_length=1, max_length=50, description="Groups.", json_schema_extra=LIST_SET),
    ] = None


class ApprovalTerms(ApiModel):
    """Who must approve, how many of them, and until when. Whoever approves needs `approve` on the Approval too."""

    from_: Annotated[Approvers, Field(alias="from")]
    min_approvals: Annotated[
        int, Field(ge=1, le=10, description="So many different people must approve; one denial denies. Default 1.")
    ] = 1
    expires_after_seconds: Annotated[
        int, Field(ge=1, le=2592000, description="After this time nobody has approved, which denies. Default 3600.")
    ] = 3600
    requester: Annotated[
        Literal["Excluded", "Allowed"],
        Field(
            description="Whether who requested the run may approve. Excluded (the default): somebody else must, and a "
            "run of which nobody knows who requested it is denied."
        ),
    ] = "Excluded"
    notify: Annotated[
        ToolCall | None,
        Field(
            description="Called once, as the run's account, to tell them; `$( approval.name )` is in scope, in a rule "
            "also `call`, `run` and `workflow`. Whatever comes of it, they can decide."
        ),
    ] = None


class ApprovalRun(ApiModel):
    """The run that waits."""

    name: Annotated[str, Field(max_length=63, description="The WorkflowRun's name.")]
    uid: Annotated[str, Field(max_length=64, description="Its UID.")]


class ApprovalCall(ApiModel):
    """The call that is asked for."""

    kind: Annotated[Literal["Chat", "Embed", "Tool", "Workflow", "Container"], Field(description="What is called.")]
    target: Annotated[ImageName, Field(description="The Model, Tool or Workflow, or the image.")]
    function: Annotated[str | None, Field(max_length=64, description="The Tool's function.")] = None
    effect: Annotated[Literal["Read", "Reversible", "Irreversible"], Field(description="What the call does at worst.")]
    arguments: Annotated[JsonObject, Field(description="All that is sent; known secrets are left out.")]
    label: Annotated[
        str | None, Field(max_length=32, description="Of what led to the call; absent: Trusted/Public.")
    ] = None


class BudgetLeft(ApiModel):
    """What the run had left when it asked: of its own limits and of what Policies budget for each run.

    What calls that were under way can come to is not left. Budgets that several runs share are not in it.
    """

    tokens: Annotated[int | None, Field(ge=0, description="Tokens in and out.")] = None
    cost_usd: Annotated[Cost | None, Field(alias="costUSD", description="US dollars. Absent: no bound.")] = None
    model_calls: Annotated[int | None, Field(ge=0, description="Calls to Models.")] = None
    tool_calls: Annotated[int | None, Field(ge=0, description="Calls to Tools, and child runs.")] = None


class Decision(ApiModel):
    """What one person says."""

    by: Annotated[UserName, Field(description="The user who adds it.")]
    decision: Annotated[Literal["Approve", "Deny"], Field(description="Approve or Deny.")]
    reason: Annotated[str, Field(max_length=1024, description="Why. The run, and a model that asked, are told.")] = ""


class ApprovalSpec(ApiModel):
    """What is asked of whom, and what they said."""

    cel: ClassVar = (
        *(
            immutable(name, "only decisions are added")
            for name in (
                *("run", "workflow", "serviceAccountName", "requestedBy", "step", "attempt", "index", "message"),
                *("call", "budgetLeft", "policy", "rule", "digest", "from", "minApprovals", "requester", "expiresAt"),
            )
        ),
        append_only(
            "decisions", MAX_DECISIONS, "a decision that was taken stays as it is; add another at the end of the list"
        ),
    )
    run: ApprovalRun
    workflow: Annotated[ObjectName, Field(description="The run's Workflow.")]
    service_account_name: Annotated[AccountName, Field(description="The account that the run acts as.")]
    requested_by: Annotated[str | None, Field(max_length=253, description="Who requested the run, if known.")] = None
    step: Annotated[str, Field(max_length=4096, description="The path of the step that waits.")]
    attempt: Annotated[int, Field(ge=1, description="The attempt of that step.")]
    index: Annotated[str, Field(max_length=64, description="Which call of the attempt; empty for an approval step.")]
    message: Annotated[str, Field(max_length=4096, description="What is asked.")]
    call: ApprovalCall | None = None
    budget_left: BudgetLeft | None = None
    policy: Annotated[
        str | None,
        Field(
            max_length=63,
            pattern=r"^(ClusterPolicy/)?[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            description="The Policy that asks for it, or ClusterPolicy/ and its name; absent: the step.",
        ),
    ] = None
    rule: Annotated[str | None, Field(max_length=40, description="Its rule.")] = None
    digest: Annotated[Digest, Field(description="Of all that is approved: with any change it is another Approval.")]
    from_: Annotated[Approvers, Field(alias="from")]
    min_approvals: Annotated[int, Field(ge=1, le=10, description="So many different people must approve.")]
    requester: Annotated[
        Literal["Excluded", "Allowed"], Field(description="Whether who requested the run may approve.")
    ]
    expires_at: Annotated[Timestamp, Field(description="What is not approved by then is denied.")]
    decisions: Annotated[
        list[Decision] | None,
        Field(
            max_length=MAX_DECISIONS,
            description="What people said, in order. Entries are added at the end and never changed.",
            json_schema_extra=ATOMIC,
        ),
    ] = None


class ApprovalStatus(ApiModel):
    """Written by the engine alone: what its journal holds."""

    conditions: Conditions = []


class Approval(Resource):
    """A decision that people must take."""

    crd: ClassVar = Kind(
        kind="Approval",
        plural="approvals",
        short_names=("appr",),
        name_max_length=63,
        columns=(
            PrinterColumn("Run", ".spec.run.name"),
            PrinterColumn("Step", ".spec.step"),
            PrinterColumn("Decided", ".status.conditions[?(@.type=='Decided')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Decided')].reason"),
            PrinterColumn("Expires", ".spec.expiresAt"),
            PrinterColumn("Message", ".spec.message", priority=1),
            PrinterColumn("Left", ".spec.budgetLeft", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: ApprovalSpec
    status: ApprovalStatus | None = None
