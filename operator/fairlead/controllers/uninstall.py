"""`python3 -m fairlead.controllers.uninstall`: remove what the operator made, before the chart's own parts go.

The Job has an account of its own that exists only for this. What people wrote stays, and so do the CRDs and the
engines' volumes. Bounded: what could not be removed in time is named, and the exit code says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import suppress

from fairlead.controllers.children import MANAGED_SELECTOR
from fairlead.errors import KubeError, NotFound
from fairlead.kube.client import Kube
from fairlead.kube.types import (
    DEPLOYMENTS,
    ENGINES,
    LEASES,
    NETWORK_POLICIES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    STATEFUL_SETS,
    ResourceType,
)
from fairlead.telemetry import logs

OPERATOR = "fairlead-operator"
WITHIN_SECONDS = 90.0
_WORKLOADS = (ENGINES, STATEFUL_SETS, DEPLOYMENTS, SERVICES)
# The network stays closed until the pods behind it are gone.
_REST = (NETWORK_POLICIES, ROLE_BINDINGS, ROLES, SERVICE_ACCOUNTS)

_log = logging.getLogger(__name__)


async def uninstall(kube: Kube, *, operator_namespace: str, pause_seconds: float = 1.0) -> None:
    """Stop the operator, then remove everything that carries its label.

    Args:
        kube: the client.
        operator_namespace: where the operator's Deployment is.
        pause_seconds: between two looks at pods that are still ending.

    Raises:
        KubeError: the API server refused something.
    """
    try:
        await kube.patch(DEPLOYMENTS, OPERATOR, operator_namespace, {"spec": {"replicas": 0}})
    except NotFound:
        _log.info("there is no operator to stop")
    while await kube.list(PODS, operator_namespace, label_selector=f"app.kubernetes.io/name={OPERATOR}"):
        await asyncio.sleep(pause_seconds)
    with suppress(NotFound):
        await kube.delete(LEASES, OPERATOR, operator_namespace)
    for rt in _WORKLOADS:
        await _remove(kube, rt, operator_namespace)
    while await kube.list(PODS, label_selector=MANAGED_SELECTOR):
        await asyncio.sleep(pause_seconds)
    for rt in _REST:
        await _remove(kube, rt, operator_namespace)


async def _remove(kube: Kube, rt: ResourceType, operator_namespace: str) -> None:
    for obj in await kube.list(rt, label_selector=MANAGED_SELECTOR):
        metadata = obj["metadata"]
        if metadata["namespace"] == operator_namespace:
            continue
        try:
            await kube.delete(rt, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except NotFound:
            continue
        _log.info("removed %s %s/%s", rt.kind, metadata["namespace"], metadata["name"])


async def main() -> int:
    """Run the uninstallation."""
    logs.configure("uninstall")
    kube = await Kube.connect()
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            await uninstall(kube, operator_namespace=os.environ["POD_NAMESPACE"])
    except (KubeError, TimeoutError) as error:
        _log.error("not everything was removed: %s", error or f"no end after {WITHIN_SECONDS:.0f} s")
        return 1
    finally:
        await kube.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
