"""Engine: the namespace's engine, always named `default`; made with chart defaults when absent."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import (
    ATOMIC,
    ApiModel,
    CelRule,
    Conditions,
    JsonObject,
    Kind,
    ObservedGeneration,
    PrinterColumn,
    Quantity,
    Resource,
)
from fairlead.api.policy import PolicyCalls
from fairlead.api.server import SecretKeyRef
from fairlead.api.tool import HttpUrl


class Storage(ApiModel):
    """The volume of each replica, with the journal unless `database` has it. Immutable, as claims are."""

    storage_class_name: Annotated[
        str | None,
        Field(
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="Absent: the cluster's default class.",
        ),
    ] = None
    size: Annotated[Quantity, Field(description="How much is asked for. Default 10Gi.")] = "10Gi"


class EngineDatabase(ApiModel):
    """A PostgreSQL database for the journal, this Engine's alone; what several replicas need.

    The Secret's key `allowed-use` must be `database`.
    """

    cel: ClassVar = (
        CelRule("self.secretRef.key != 'allowed-use'", "allowed-use is no connection URL", ".secretRef.key"),
    )
    secret_ref: Annotated[
        SecretKeyRef,
        Field(description="Where postgresql://user:password@host:port/database stands, with libpq's parameters."),
    ]


class EngineResources(ApiModel):
    """The engine's requests and memory limit."""

    cpu: Annotated[Quantity, Field(description="CPU request; there is no CPU limit. Default 250m.")] = "250m"
    memory: Annotated[
        Quantity,
        Field(description="Memory request and limit. Default 512Mi: room for a few runs at once that hold much."),
    ] = "512Mi"


class Telemetry(ApiModel):
    """Where spans go. Absent: nowhere; runs say so in their condition Traced."""

    endpoint: Annotated[HttpUrl, Field(description="OTLP over HTTP, for example http://otel-collector:4318.")]


class Security(ApiModel):
    """What loosens stands here, written by who may write Engines."""

    allowed_private_hosts: Annotated[
        list[Annotated[str, Field(max_length=260, pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")]],
        Field(
            max_length=50,
            description="host:port of private addresses that Models and Tools may name.",
            json_schema_extra=ATOMIC,
        ),
    ] = []
    require_network_isolation: Annotated[
        Literal["Required", "NotRequired"],
        Field(
            description="Required: a server that Fairlead runs starts when the network has locked its pod in. "
            "NotRequired: at once, for clusters that enforce no NetworkPolicies. Default Required.",
        ),
    ] = "Required"
    image_tags: Annotated[
        Literal["Refused", "Allowed"],
        Field(
            description="Whether container steps may name images without a digest: nobody knows which bytes these are. "
            "Default Refused."
        ),
    ] = "Refused"


class EngineSpec(ApiModel):
    """How the namespace's engine runs."""

    cel: ClassVar = (
        CelRule(
            "!has(self.replicas) || self.replicas == 1 || has(self.database)",
            "several replicas need a database that they share: spec.database",
            ".replicas",
        ),
    )
    storage: Storage | None = None
    database: EngineDatabase | None = None
    replicas: Annotated[
        int,
        Field(
            ge=1,
            le=5,
            description="One serves, the others stand by and take over when it is gone. More than one needs "
            "`database`. Default 1.",
        ),
    ] = 1
    resources: EngineResources | None = None
    telemetry: Telemetry | None = None
    security: Security | None = None


class CopiedPolicy(ApiModel):
    """A ClusterPolicy as the engine holds it against calls."""

    name: Annotated[str, Field(max_length=63, description="Its name.")]
    uid: Annotated[str, Field(max_length=64, description="Its UID.")]
    generation: Annotated[int, Field(ge=0, description="Which of its versions this is.")]
    spec: Annotated[JsonObject, Field(description="Its spec without the selector.")]


class CountedPolicy(PolicyCalls):
    """What the rules of a ClusterPolicy did about calls of this namespace; a crash may lose its last seconds."""

    name: Annotated[str, Field(max_length=63, description="Its name.")]
    uid: Annotated[str, Field(max_length=64, description="Its UID.")]


class EngineStatus(ApiModel):
    """Written by the operator (Ready, Stalled, observedGeneration, clusterPolicies) and the engine (all else)."""

    observed_generation: ObservedGeneration | None = None
    conditions: Conditions = []
    owner: Annotated[
        str | None, Field(max_length=63, description="The pod that serves. Another one is standing by, or starting.")
    ] = None
    cluster_policies: Annotated[
        list[CopiedPolicy] | None,
        Field(
            max_length=200,
            description="The ClusterPolicies that bind this namespace. Absent: the operator has not said yet, and no "
            "call is made.",
            json_schema_extra=ATOMIC,
        ),
    ] = None
    cluster_policy_calls: Annotated[
        list[CountedPolicy] | None,
        Field(
            max_length=200,
            description="What the rules of ClusterPolicies did here. The operator sums it up in their own status.",
            json_schema_extra=ATOMIC,
        ),
    ] = None


def _immutable_storage(field: str, *, default: str) -> CelRule:
    """Compare with what the field means when it is absent; optional chaining would cost too much for the server."""
    before, now = (
        f"(has({root}.spec) && has({root}.spec.storage) && has({root}.spec.storage.{field}) "
        f"? {root}.spec.storage.{field} : '{default}')"
        for root in ("oldSelf", "self")
    )
    return CelRule(f"{now} == {before}", f"storage.{field} is immutable: a StatefulSet cannot change its claims")


class Engine(Resource):
    """The engine of a namespace: the one process that runs its workflows and the only way out of them."""

    cel: ClassVar = (
        CelRule("self.metadata.name == 'default'", "a namespace has one Engine, and its name is default"),
        _immutable_storage("size", default="10Gi"),
        _immutable_storage("storageClassName", default=""),
    )
    crd: ClassVar = Kind(
        kind="Engine",
        plural="engines",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Owner", ".status.owner", priority=1),
            PrinterColumn("Guardrails", ".status.conditions[?(@.type=='GuardrailsInstalled')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: EngineSpec = EngineSpec()
    status: EngineStatus | None = None
