"""An API server with our CRDs and nothing else: what structure and CEL refuse, before any admission policy."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tests.cluster import Cluster, Unsuitable, why_not
from tests.e2e.conftest import administrator, crds, kubeconfig, kubectl, namespace

__all__ = ["administrator", "cluster_environment", "crds", "kubeconfig", "kubectl", "namespace"]


@pytest.fixture(scope="session")
def cluster_environment() -> Iterator[dict[str, str]]:
    """KUBECONFIG of a cluster of these tests' own, and a PATH that finds kubectl."""
    cluster, reason = Cluster("bare"), why_not()
    if not reason:
        try:
            cluster.up()
        except Unsuitable as unsuitable:
            reason = str(unsuitable)
    if reason and os.environ.get("FAIRLEAD_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"FAIRLEAD_REQUIRE_CLUSTER=1, but there is no cluster: {reason}", pytrace=False)
    if reason:
        pytest.skip(f"no cluster here: {reason}")
    yield {"PATH": os.environ.get("PATH", os.defpath)} | cluster.environment()
    cluster.down()
