"""What Tools and Models share: credentials and servers that the operator runs in pods of their own."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fairlead.api.meta import ATOMIC, ApiModel, CelRule, Quantity, list_map


class SecretKeyRef(ApiModel):
    """A key of a Secret in the same namespace. The Secret's key `allowed-hosts` says where the value may go.

    Of its lines, `host:port` means https, and `http://host:port` clear text.
    """

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            description="The Secret's name. There is no namespace: it is always this one.",
        ),
    ]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The key in its data.")
    ]


class Credential(ApiModel):
    """A secret that the engine adds to requests, in a header and nowhere else."""

    cel: ClassVar = (
        CelRule("self.secretRef.key != 'allowed-hosts'", "allowed-hosts is no credential", ".secretRef.key"),
    )
    secret_ref: SecretKeyRef
    header: Annotated[
        str,
        Field(
            max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="The header that carries it. Default Authorization."
        ),
    ] = "Authorization"
    scheme: Annotated[
        str | None,
        Field(
            max_length=32, pattern=r"^[A-Za-z0-9-]*$", description="The word before it. Default Bearer; empty for none."
        ),
    ] = "Bearer"


class EnvVar(ApiModel):
    """A plain environment variable; never a secret."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The variable's name."),
    ]
    value: Annotated[str, Field(max_length=4096, description="Its value, as it is: nothing is substituted.")] = ""


class ServerResources(ApiModel):
    """Bounds, so that a server cannot starve its neighbours. Memory is reserved whole, of CPU 50m."""

    cpu: Annotated[Quantity, Field(description="CPU limit. 50m are reserved. Default 1.")] = "1"
    memory: Annotated[Quantity, Field(description="Memory request and limit. Default 512Mi.")] = "512Mi"


class Server(ApiModel):
    """A server that the operator runs: restricted, without token, secrets, DNS or any way out."""

    image: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._/:@]*$",
            description="The container image, best with its digest: name@sha256:...",
        ),
    ]
    command: Annotated[
        list[Annotated[str, Field(max_length=4096)]] | None,
        Field(max_length=50, description="Program and arguments. Absent: the image's own.", json_schema_extra=ATOMIC),
    ] = None
    env: Annotated[
        list[EnvVar], Field(max_length=50, description="Environment variables.", json_schema_extra=list_map("name"))
    ] = []
    port: Annotated[int, Field(ge=1024, le=65535, description="Where it listens. Default 8080.")] = 8080
    resources: ServerResources | None = None
