"""What Tools and Models share: credentials and servers that the operator runs in pods of their own."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fairlead.api.meta import ATOMIC, ApiModel, CelRule, Quantity, list_map


class SecretKeyRef(ApiModel):
    """A key of a Secret in the same namespace. The Secret's key `allowed-hosts` says where the value may go."""

    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]


class Credential(ApiModel):
    """A secret that the engine adds to requests, in a header and nowhere else."""

    cel: ClassVar = (
        CelRule("self.secretRef.key != 'allowed-hosts'", "allowed-hosts is no credential", ".secretRef.key"),
    )
    secret_ref: SecretKeyRef
    header: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Default Authorization.")] = (
        "Authorization"
    )
    scheme: Annotated[
        str | None, Field(max_length=32, pattern=r"^[A-Za-z0-9-]*$", description="Default Bearer; empty for none.")
    ] = "Bearer"


class EnvVar(ApiModel):
    """A plain environment variable; never a secret."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: Annotated[str, Field(max_length=4096)] = ""


class ServerResources(ApiModel):
    """Requests and limits are the same, so that a server cannot starve its neighbours."""

    cpu: Quantity = "500m"
    memory: Quantity = "512Mi"


class Server(ApiModel):
    """A server that the operator runs: restricted, without token, secrets, DNS or any way out."""

    image: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._/:@]*$")]
    command: Annotated[
        list[Annotated[str, Field(max_length=4096)]] | None, Field(max_length=50, json_schema_extra=ATOMIC)
    ] = None
    env: Annotated[list[EnvVar], Field(max_length=50, json_schema_extra=list_map("name"))] = []
    port: Annotated[int, Field(ge=1024, le=65535, description="Default 8080.")] = 8080
    resources: ServerResources | None = None
