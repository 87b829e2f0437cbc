"""What the chart tells the operator, by environment variables: read once at start, passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import orjson

from fairlead.api.engine import EngineSpec


@dataclass(frozen=True, slots=True)
class EngineImage:
    """What engines run. Admission knows it too, from a policy that the operator cannot write."""

    name: str
    pull_policy: str = "IfNotPresent"


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's settings.

    Attributes:
        namespace: where the operator runs; it builds nothing there.
        identity: this process among the candidates for the Lease: the pod's name.
        engine_image: what engines run.
        engine_defaults: the spec of Engines that the operator makes.
        workers: reconciliations at a time.
        resync_seconds: everything is looked at again so often.
        port: of the probes and metrics.
    """

    namespace: str
    identity: str
    engine_image: EngineImage
    engine_defaults: Mapping[str, Any]
    workers: int = 16
    resync_seconds: float = 60.0
    port: int = 8080

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings.

        Raises:
            KeyError: a variable is missing.
            ValueError: a variable makes no sense (pydantic's and orjson's errors are ValueErrors).
        """
        defaults = orjson.loads(environment.get("FAIRLEAD_ENGINE_DEFAULTS", "{}"))
        EngineSpec.model_validate(defaults)
        return cls(
            namespace=environment["POD_NAMESPACE"],
            identity=environment["POD_NAME"],
            engine_image=EngineImage(
                environment["FAIRLEAD_ENGINE_IMAGE"],
                environment.get("FAIRLEAD_ENGINE_IMAGE_PULL_POLICY", "IfNotPresent"),
            ),
            engine_defaults=defaults,
            workers=int(environment.get("FAIRLEAD_WORKERS", "16")),
            resync_seconds=float(environment.get("FAIRLEAD_RESYNC_SECONDS", "60")),
            port=int(environment.get("FAIRLEAD_PORT", "8080")),
        )

    def serves(self, namespace: str) -> bool:
        """Tell whether the operator builds anything there: not beside itself and not where the cluster's parts are."""
        return namespace != self.namespace and not namespace.startswith("kube-")
