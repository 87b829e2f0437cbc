"""What every test on a real cluster needs: a cluster, kubectl, a fresh namespace, our CRDs.

The cluster is that of $KUBECONFIG, else the shared one of tests/cluster, brought up when it is not. A machine that
cannot run one skips these tests and says why; with FAIRLEAD_REQUIRE_CLUSTER=1 (CI) it fails instead.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster import Cluster, Unsuitable, why_not
from tests.e2e.installation import FOR_TESTS, Fairlead, load_images
from tests.e2e.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def cluster_environment() -> dict[str, str]:
    """KUBECONFIG of a cluster that answers, and a PATH that finds kubectl and helm."""
    if given := os.environ.get("KUBECONFIG"):
        return {"KUBECONFIG": given, "PATH": os.environ.get("PATH", os.defpath)}
    reason = why_not()
    if not reason:
        cluster = Cluster()
        try:
            cluster.up()
            return {"PATH": os.environ.get("PATH", os.defpath)} | cluster.environment()
        except Unsuitable as unsuitable:
            reason = str(unsuitable)
    if os.environ.get("FAIRLEAD_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"FAIRLEAD_REQUIRE_CLUSTER=1, but there is no cluster: {reason}", pytrace=False)
    pytest.skip(f"no cluster here: {reason}")


@pytest.fixture(scope="session")
def kubeconfig(cluster_environment: dict[str, str]) -> Path:
    """The administrator's kubeconfig."""
    return Path(cluster_environment["KUBECONFIG"])


@pytest.fixture(scope="session")
def administrator(cluster_environment: dict[str, str]) -> Kubectl:
    """Run kubectl as the administrator, outside any test's namespace."""
    return Kubectl(cluster_environment["KUBECONFIG"], cluster_environment["PATH"])


@pytest.fixture(scope="session")
def crds(administrator: Kubectl) -> None:
    """The committed CRDs, applied and served."""
    directory = str(ROOT / "crds")
    administrator("apply", "--server-side", "--force-conflicts", f"--filename={directory}")
    administrator("wait", "--for=condition=Established", "--timeout=60s", f"--filename={directory}")


@pytest.fixture(scope="session")
def chart(administrator: Kubectl, cluster_environment: dict[str, str], crds: None) -> Fairlead:
    """The chart of this checkout, installed with our images (which somebody else's cluster must have already)."""
    fairlead = Fairlead(administrator, cluster_environment)
    if not os.environ.get("KUBECONFIG"):
        load_images(Cluster())
    fairlead.install(*FOR_TESTS)
    fairlead.restart()
    return fairlead


@pytest.fixture
def namespace(administrator: Kubectl) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    administrator("create", "namespace", name)
    yield name
    administrator("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(administrator: Kubectl, namespace: str) -> Kubectl:
    """Run kubectl as the administrator in the test's own namespace."""
    return administrator.within(namespace)
