"""Engines: one for every namespace that has a Fairlead object, made when nobody declared it, and built here.

The Secrets that Tools, Models and Workflows name are mounted into its pod. A new name restarts the engine, so names are
gathered: they change the StatefulSet at most once in `SECRETS_INTERVAL_SECONDS`; values never do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.engine import Engine
from fairlead.api.reasons import ReadyReason
from fairlead.controllers.children import ENGINE_COMPONENT, labels, waiting_reason
from fairlead.controllers.engine_objects import ENGINE, ca_config_map, engine_objects, mounted_secrets
from fairlead.controllers.plan import Object, Plan, Verdict, invalid, parse
from fairlead.controllers.settings import EngineImage
from fairlead.errors import InvalidSpec
from fairlead.kube.types import ENGINES

SECRETS_INTERVAL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Secrets:
    """Which Secrets to mount now, and in how many seconds to look again when some have to wait."""

    names: frozenset[str]
    again_seconds: float | None = None


def wanted_secrets(users: Iterable[Object]) -> frozenset[str]:
    """Return the names of the Secrets that these objects use.

    They are credentials of Tools and Models, keys of Workflows' HTTP triggers, and an Engine's database.

    An object that cannot be right has its own verdict; here it names nothing, and stops nobody else's.
    """
    found = set()
    for user in users:
        spec = user.get("spec", {})
        triggers = _at(spec, "triggers", "http")
        found.add(str(_at(spec, "credential", "secretRef", "name") or ""))
        found.add(str(_at(spec, "database", "secretRef", "name") or ""))
        for trigger in triggers if isinstance(triggers, list) else ():
            found.add(str(_at(trigger, "auth", "hmac", "secretRef", "name") or ""))
    return frozenset(name for name in found if name)


def _at(value: Any, *keys: str) -> Any:
    """Return what stands there, as far as it is a text or a list; "" for anything else."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str | list) else ""


def gather_secrets(wanted: frozenset[str], *, stateful_set: Object | None, changed_seconds_ago: float) -> Secrets:
    """Return the Secrets to mount: those wanted, or those mounted while the last change is too recent.

    Args:
        wanted: the names that Tools, Models and Workflows use.
        stateful_set: the engine's StatefulSet as last seen.
        changed_seconds_ago: since the names changed the last time; infinite if this process never saw it.
    """
    mounted = mounted_secrets(stateful_set)
    if stateful_set is None or wanted == mounted or changed_seconds_ago >= SECRETS_INTERVAL_SECONDS:
        return Secrets(wanted)
    return Secrets(mounted, again_seconds=SECRETS_INTERVAL_SECONDS - changed_seconds_ago)


def plan_missing(namespace: str, *, defaults: Mapping[str, Any]) -> Plan:
    """Return the plan for a namespace that has Fairlead objects and no Engine."""
    head: Object = {"name": ENGINE, "namespace": namespace, "labels": labels(ENGINE_COMPONENT, ENGINE)}
    return Plan(create=((ENGINES, {"metadata": head, "spec": dict(defaults)}),))


def plan(obj: Object, *, image: EngineImage, secrets: Secrets, stateful_set: Object | None, pods: list[Object]) -> Plan:
    """Return what an Engine needs.

    Args:
        obj: the Engine.
        image: what engines run.
        secrets: from `gather_secrets`.
        stateful_set: the engine's StatefulSet as last seen.
        pods: its pods, looked at only while it is not ready.
    """
    if obj["metadata"]["name"] != ENGINE:
        message = f"a namespace has one Engine, and its name is {ENGINE}"
        return Plan(verdict=Verdict(False, ReadyReason.NAME_NOT_ALLOWED, message, stalled=True))
    try:
        engine = parse(Engine, obj)
    except InvalidSpec as error:
        return Plan(verdict=invalid(error))
    waits = [seconds for seconds in (secrets.again_seconds, None if is_ready(stateful_set) else 5.0) if seconds]
    return Plan(
        verdict=_verdict(stateful_set, pods),
        create=(ca_config_map(obj),),
        apply=engine_objects(obj, engine.spec, image=image, secrets=secrets.names),
        again_seconds=min(waits, default=None),
    )


def isolation_guard(engine: Object | None, image: EngineImage) -> EngineImage | None:
    """Return the image of what lets a namespace's servers start, or None if its Engine wants them to start at once."""
    security = (engine or {}).get("spec", {}).get("security") or {}
    return None if security.get("requireNetworkIsolation") == "NotRequired" else image


def is_ready(stateful_set: Object | None) -> bool:
    """Tell whether the newest StatefulSet's pod is ready."""
    if stateful_set is None:
        return False
    status: Object = stateful_set.get("status", {})
    return bool(
        status.get("observedGeneration", 0) >= stateful_set["metadata"].get("generation", 0)
        and status.get("readyReplicas", 0) > 0
        and status.get("updatedReplicas", 0) > 0
        and status.get("currentRevision") == status.get("updateRevision")
    )


def _verdict(stateful_set: Object | None, pods: list[Object]) -> Verdict:
    if is_ready(stateful_set):
        return Verdict(True, ReadyReason.READY, "the engine serves")
    if stateful_set is None:
        return Verdict(False, ReadyReason.PROGRESSING, "the engine is being made")
    return Verdict(False, ReadyReason.PROGRESSING, waiting_reason(pods) or "the engine does not serve yet")
