"""What makes runs without somebody who asks: the clock, and requests from outside."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fairlead.api.meta import ApiModel, CelRule, Expression, Identifier, JsonObject, Template, list_map
from fairlead.api.server import SecretKeyRef


class Schedule(ApiModel):
    """A run whenever the clock says so."""

    name: Annotated[Identifier, Field(description="Runs carry it in the label fairlead.dev/schedule.")]
    cron: Annotated[
        str,
        Field(
            min_length=9,
            max_length=100,
            pattern=r"^[^\s]+([ \t]+[^\s]+){4}$",
            description="Minute, hour, day of month, month, day of week. A time that the clock skips comes right "
            "after, one that it repeats comes once.",
        ),
    ]
    time_zone: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^[A-Za-z0-9_+/-]+$",
            description="IANA name, for example Europe/Paris. Default Etc/UTC.",
        ),
    ] = None
    input: Annotated[JsonObject | None, Field(description="The input of each run, as it is; no $( ).")] = None
    when_missed: Annotated[
        Literal["RunOnce", "Skip"] | None,
        Field(
            description="What becomes of times that passed more than a minute ago, while the engine was away or the "
            "Workflow not Ready. RunOnce (default): one run for the last of them. Skip: none."
        ),
    ] = None


class HmacAuth(ApiModel):
    """Who knows a secret: HMAC-SHA256 over the body, in hex. The Secret's key `allowed-use` must be `hmac`."""

    secret_ref: SecretKeyRef
    header: Annotated[
        str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="The header with the signature.")
    ]
    prefix: Annotated[
        str, Field(max_length=32, description="What stands before the hex digits, for example `sha256=` or `v1=`.")
    ] = ""


class KubernetesAuth(ApiModel):
    """A token of a ServiceAccount for the audience https://engine.NAMESPACE.fairlead.dev/hooks, with `invoke`."""


class TriggerAuth(ApiModel):
    """Who may call: exactly one way."""

    cel: ClassVar = (CelRule("has(self.hmac) != has(self.kubernetes)", "set exactly one of hmac and kubernetes"),)
    hmac: HmacAuth | None = None
    kubernetes: KubernetesAuth | None = None


class SignalCall(ApiModel):
    """A signal for a run of this Workflow that is there already."""

    run: Annotated[Template, Field(min_length=1, description="The run's name: text with $( ) over body and headers.")]
    name: Annotated[Identifier, Field(description="What the wait calls it.")]
    data: Annotated[Any, Field(description="What comes with it; $( ) as in `run`.")] = None


class HttpTrigger(ApiModel):
    """A run, or a signal, for a POST to /hooks/WORKFLOW/NAME on the engine's port 8444."""

    cel: ClassVar = (
        CelRule("!has(self.input) || !has(self.signal)", "set at most one of input and signal", ".signal"),
        CelRule(
            "!has(self.dedupeKey) || !has(self.signal)",
            "dedupeKey is about runs; a signal is known by the run and what comes with it",
            ".dedupeKey",
        ),
    )
    name: Annotated[Identifier, Field(description="Runs carry it in the label fairlead.dev/trigger.")]
    auth: TriggerAuth
    when: Annotated[
        Expression | None,
        Field(description="CEL over `body` and `headers` (lower case): others are answered and ignored."),
    ] = None
    input: Annotated[
        JsonObject | None, Field(description="The run's input; $( ) over `body` and `headers`. Default: {}.")
    ] = None
    dedupe_key: Annotated[
        Template | None,
        Field(min_length=1, description="The same key again is answered with the run that it made the first time."),
    ] = None
    signal: SignalCall | None = None


class Triggers(ApiModel):
    """What makes runs without somebody who asks."""

    cel: ClassVar = (CelRule("has(self.schedules) || has(self.http)", "say at least one of schedules and http"),)
    schedules: Annotated[
        list[Schedule] | None,
        Field(min_length=1, max_length=50, description="By the clock.", json_schema_extra=list_map("name")),
    ] = None
    http: Annotated[
        list[HttpTrigger] | None,
        Field(min_length=1, max_length=50, description="By requests.", json_schema_extra=list_map("name")),
    ] = None
