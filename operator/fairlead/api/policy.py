"""Policy: grants that become RBAC. Whoever may write Policies with grants hands out AI permissions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    LIST_SET,
    AccountName,
    ApiModel,
    Conditions,
    FunctionName,
    Kind,
    ObjectName,
    ObservedGeneration,
    PrinterColumn,
    Resource,
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


class PolicySpec(ApiModel):
    """What the Policy gives."""

    grants: Grants | None = None


class PolicyStatus(ApiModel):
    """Written by the operator."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []


class Policy(Resource):
    """Grants for workflows' accounts."""

    crd: ClassVar = Kind(
        kind="Policy",
        plural="policies",
        short_names=("pol",),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Accounts", ".spec.grants.serviceAccounts"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: PolicySpec
    status: PolicyStatus | None = None
