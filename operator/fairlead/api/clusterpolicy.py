"""ClusterPolicy: rules for the workflows of many namespaces, which none of these can weaken. It grants nothing."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    ApiModel,
    CelRule,
    Conditions,
    Kind,
    ObservedGeneration,
    PrinterColumn,
    Resource,
)
from fairlead.api.policy import AppliesTo, PolicyCalls, Rules

LabelValue = Annotated[str, Field(max_length=63)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]


class LabelRequirement(ApiModel):
    """What a label must be, or not be."""

    cel: ClassVar = (
        CelRule(
            "has(self.values) == (self.operator in ['In', 'NotIn'])",
            "values go with In and NotIn, and with these alone",
            ".values",
        ),
    )
    key: Annotated[LabelKey, Field(description="The label.")]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist"],
        Field(
            description="In, NotIn: its value is, or is not, one of `values`. Exists, DoesNotExist: it is there or not."
        ),
    ]
    values: Annotated[
        list[LabelValue] | None, Field(min_length=1, max_length=50, description="Values.", json_schema_extra=ATOMIC)
    ] = None


class NamespaceSelector(ApiModel):
    """Namespaces by their labels; every one of both lists must hold."""

    match_labels: Annotated[
        dict[str, LabelValue] | None, Field(max_length=20, description="Labels and their values.")
    ] = None
    match_expressions: Annotated[
        list[LabelRequirement] | None,
        Field(max_length=20, description="What else labels must be.", json_schema_extra=ATOMIC),
    ] = None


class ClusterPolicySpec(ApiModel):
    """Whom the rules bind, and what they are."""

    namespace_selector: Annotated[
        NamespaceSelector | None, Field(description="The namespaces that it binds. Absent: all.")
    ] = None
    applies_to: Annotated[
        AppliesTo | None,
        Field(
            description="The Workflows in these whose runs it binds. Absent: all. Who may edit a Workflow may label "
            "it: what must bind everybody has none."
        ),
    ] = None
    mode: Annotated[
        Literal["Enforce", "Audit"] | None,
        Field(description="Enforce (the default), or Audit: what the rules would deny is recorded and happens."),
    ] = None
    rules: Rules


MOST_NAMESPACES = 2000
"""Of so many namespaces calls are counted."""


class NamespaceCalls(PolicyCalls):
    """What the rules did about calls of one namespace, as its Engine says."""

    namespace: Annotated[str, Field(max_length=63, description="The namespace.")]
    engine: Annotated[str, Field(max_length=64, description="The UID of its Engine.")]


class ClusterPolicyStatus(ApiModel):
    """Written by the operator."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    namespaces: Annotated[int | None, Field(ge=0, description="Namespaces with an Engine that it binds.")] = None
    calls: Annotated[
        PolicyCalls | None,
        Field(description="In all namespaces, those that are gone included; up to some twenty seconds late."),
    ] = None
    by_namespace: Annotated[
        list[NamespaceCalls] | None,
        Field(
            max_length=MOST_NAMESPACES,
            description="Of the namespaces that there are, those where its rules did anything.",
            json_schema_extra=ATOMIC,
        ),
    ] = None


class ClusterPolicy(Resource):
    """Rules for the workflows of many namespaces."""

    crd: ClassVar = Kind(
        kind="ClusterPolicy",
        plural="clusterpolicies",
        short_names=("cpol",),
        namespaced=False,
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Mode", ".spec.mode"),
            PrinterColumn("Namespaces", ".status.namespaces", "integer"),
            PrinterColumn("Denied", ".status.calls.denied", "integer"),
            PrinterColumn("WouldDeny", ".status.calls.wouldDeny", "integer"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: ClusterPolicySpec
    status: ClusterPolicyStatus | None = None
