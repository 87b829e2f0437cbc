"""The input that stands in a ConfigMap: read once, right before the run is accepted, and frozen with it."""

from __future__ import annotations

from fairlead.api.canonical import strict_json
from fairlead.api.reasons import AcceptedReason, RunReason
from fairlead.api.run import InputFrom
from fairlead.engine.acceptance import Given, Wait, refuse
from fairlead.engine.seams import Cluster
from fairlead.errors import KubeError, NotFound

RETRY_MS = 5_000


async def read_input(source: InputFrom, cluster: Cluster | None, *, until_ms: int, now_ms: int) -> Given:
    """Return the object that `inputFrom` names, or what becomes of the run without it.

    Args:
        source: where it stands.
        cluster: who has ConfigMaps; None in local mode.
        until_ms: Unix ms until which a ConfigMap that is not there is waited for.
        now_ms: Unix ms.
    """
    name, key = source.config_map.name, source.config_map.key
    if cluster is None:
        return refuse(RunReason.INVALID_INPUT, "spec.inputFrom: there are no ConfigMaps without a cluster")
    try:
        data = await cluster.config_map(name)
    except NotFound:
        return _missing(f"there is no ConfigMap {name}", until_ms, now_ms)
    except KubeError as error:
        return Wait(AcceptedReason.INPUT_NOT_FOUND, f"ConfigMap {name}: {error}", now_ms + RETRY_MS)
    if key not in data:
        return _missing(f"ConfigMap {name} has no key {key}", until_ms, now_ms)
    try:
        value = strict_json(data[key])
    except ValueError as error:
        return refuse(RunReason.INVALID_INPUT, f"ConfigMap {name}, key {key}: this is no JSON: {error}")
    if not isinstance(value, dict):
        return refuse(RunReason.INVALID_INPUT, f"ConfigMap {name}, key {key}: an object is needed")
    return value


def _missing(message: str, until_ms: int, now_ms: int) -> Given:
    if now_ms >= until_ms:
        return refuse(RunReason.INVALID_INPUT, message)
    return Wait(AcceptedReason.INPUT_NOT_FOUND, message, min(now_ms + RETRY_MS, until_ms))
