"""A cluster that may be broken: one of its own, so that nobody else finds it broken, gone at the end of the session.

A machine that cannot run one skips these tests and says why; with FAIRLEAD_REQUIRE_CLUSTER=1 (CI) it fails instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from tests.cluster import Cluster, Unsuitable, why_not
from tests.e2e.installation import RESTRICTED, Fairlead, load_images
from tests.e2e.kubectl import Kubectl
from tests.faults.errands import accepts_runs, declare


def _without_cluster(reason: str) -> None:
    if os.environ.get("FAIRLEAD_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"FAIRLEAD_REQUIRE_CLUSTER=1, but there is no cluster: {reason}", pytrace=False)
    pytest.skip(f"no cluster here: {reason}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of these tests' own, with our images on its node."""
    if reason := why_not():
        _without_cluster(reason)
    cluster = Cluster("faults")
    try:
        cluster.up()
        load_images(cluster)
        yield cluster
    except Unsuitable as unsuitable:
        _without_cluster(str(unsuitable))
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def fairlead(cluster: Cluster) -> Fairlead:
    """The chart, installed there."""
    environment = cluster.environment()
    installation = Fairlead(Kubectl(environment["KUBECONFIG"], environment["PATH"]), environment)
    installation.install()
    return installation


@pytest.fixture
def team(fairlead: Fairlead) -> Iterator[Kubectl]:
    """A fresh namespace that enforces Pod Security `restricted`, with ledgers, a grant and Workflows that use them."""
    name = f"faults-{uuid.uuid4().hex[:10]}"
    fairlead.kubectl("create", "namespace", name)
    fairlead.kubectl("label", "namespace", name, RESTRICTED)
    team = fairlead.kubectl.within(name)
    declare(team)
    accepts_runs(team)
    yield team
    fairlead.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
