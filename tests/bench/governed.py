"""Policies under load: what their rules cost where many runs share an engine, and how often a permission is asked for.

Permissions go through the cache of the engine on a cluster, in front of the Policies' grants instead of an API server.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry
from tests.bench import workloads
from tests.bench.decisions import POLICIES
from tests.bench.engines import NOWHERE, InstantTools, by_grants, serving
from tests.bench.figures import Repetition, Title, value

from fairlead.cli.local import LocalResources
from fairlead.engine.authorizer import Answer, CachedAuthorizer
from fairlead.policy.permission import Permission
from fairlead.telemetry.metrics import EngineMetrics

AT_ONCE, RUNS, RUN_STEPS = 32, 192, 10
TITLES = {
    **{
        f"local.governed.{many}": Title(f"call steps, 32 runs at once, under {many} Policies of two rules", "1/s")
        for many in POLICIES
    },
    "local.cache_hits": Title("permissions that the cache knows, of those asked for in that", "%"),
}


async def under_policies(folder: Path) -> Repetition:
    """Execute the same runs with none, one, ten and a hundred Policies whose rules bind them and forbid nothing."""
    found, metrics = {}, EngineMetrics()

    def cached(resources: LocalResources) -> CachedAuthorizer:
        grants = by_grants(resources)

        async def review(account: str, permission: Permission) -> Answer:
            return Answer((await grants.authorize(account, (permission,))).verdict == "Allowed")

        return CachedAuthorizer(review, counter=metrics.authorizer_cache)

    declared = [workloads.chain("w", RUN_STEPS), workloads.tool({"url": NOWHERE}), workloads.policy()]
    for many in POLICIES:
        rules = [workloads.ruling(f"p{number}") for number in range(many)]
        async with serving(folder, [*declared, *rules], tools=InstantTools(), authorizes=cached) as bench:
            await bench.run("w")
            began = time.perf_counter()
            await bench.many("w", runs=RUNS, at_once=AT_ONCE)
            found[f"local.governed.{many}"] = value(RUNS * RUN_STEPS / (time.perf_counter() - began))
    return {**found, "local.cache_hits": value(_hits(metrics.registry))}


PARTS: Sequence[Callable[[Path], Awaitable[Repetition]]] = (under_policies,)


def _hits(registry: CollectorRegistry) -> float:
    """Return how many of a hundred the cache knew; who waits for a review that is under way is not counted."""
    name = "fairlead_authorizer_cache_total"
    hits, misses = (registry.get_sample_value(name, {"result": result}) or 0 for result in ("hit", "miss"))
    return hits / (hits + misses) * 100
