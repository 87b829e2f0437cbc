"""Engine: the namespace's engine, always named `default`; made with chart defaults when absent."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fairlead.api.meta import ATOMIC, ApiModel, CelRule, Conditions, Kind, PrinterColumn, Quantity, Resource
from fairlead.api.tool import HttpUrl


class Storage(ApiModel):
    """The volume that holds the journal."""

    cel: ClassVar = (
        CelRule("self.size == oldSelf.size", "size is immutable: a StatefulSet cannot change its claims", ".size"),
        CelRule(
            "has(self.storageClassName) == has(oldSelf.storageClassName) && "
            "(!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
            "storageClassName is immutable: a StatefulSet cannot change its claims",
            ".storageClassName",
        ),
    )
    storage_class_name: Annotated[
        str | None,
        Field(
            max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="Absent: the cluster's default."
        ),
    ] = None
    size: Quantity = "10Gi"


class EngineResources(ApiModel):
    """The engine's requests and memory limit."""

    cpu: Quantity = "250m"
    memory: Quantity = "512Mi"


class Telemetry(ApiModel):
    """Where spans go."""

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


class EngineSpec(ApiModel):
    """How the namespace's engine runs."""

    storage: Storage | None = None
    resources: EngineResources | None = None
    telemetry: Telemetry | None = None
    security: Security | None = None


class EngineStatus(ApiModel):
    """Written by the operator."""

    observed_generation: Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})] | None = None
    conditions: Conditions = []


class Engine(Resource):
    """The engine of a namespace."""

    crd: ClassVar = Kind(
        kind="Engine",
        plural="engines",
        short_names=(),
        columns=(
            PrinterColumn("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn("Reason", ".status.conditions[?(@.type=='Ready')].message", priority=1),
            PrinterColumn("Age", ".metadata.creationTimestamp", "date"),
        ),
    )
    spec: EngineSpec = EngineSpec()
    status: EngineStatus | None = None
