"""A namespace of an installed Fairlead with what is to be run in it; deleted at the end."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from tests.bench import instant, workloads
from tests.bench.workloads import Manifest
from tests.cluster import Cluster
from tests.e2e.installation import SERVERS_IMAGE, Fairlead, condition, load_images, until
from tests.e2e.kubectl import Kubectl

PORT = 8080
DELETED_SECONDS = 600
"""A namespace with ten thousand runs is not gone at once."""
INSTANT = {
    "image": SERVERS_IMAGE,
    "command": ["python3", "-c", Path(instant.__file__).read_text(encoding="utf-8"), "--port", str(PORT)],
    "port": PORT,
    "resources": {"cpu": "400m", "memory": "128Mi"},
}


@contextmanager
def team(*workflows: Manifest) -> Iterator[Kubectl]:
    """Have a namespace where these Workflows can run; the context gives kubectl within it.

    The cluster is that of $KUBECONFIG, where Fairlead is installed from the checkout if it is not there; else the test
    cluster, which gets the Fairlead of the checkout. What was installed stays, as after the tests.

    Raises:
        ClusterError: there is no cluster.
    """
    administrator = _installed()
    name = f"bench-{uuid.uuid4().hex[:8]}"
    administrator("create", "namespace", name)
    kubectl = administrator.within(name)
    try:
        _declare(kubectl, [workloads.engine(), *workflows, workloads.tool({"server": INSTANT}), workloads.policy()])
        yield kubectl
    finally:
        seconds = DELETED_SECONDS
        administrator("delete", "namespace", name, f"--timeout={seconds}s", timeout_seconds=seconds + 30)


def _installed() -> Kubectl:
    if given := os.environ.get("KUBECONFIG"):
        environment = {"KUBECONFIG": given, "PATH": os.environ.get("PATH", os.defpath)}
    else:
        cluster = Cluster()
        cluster.up()
        environment = cluster.environment()
    os.environ["KUBECONFIG"] = environment["KUBECONFIG"]  # where our own client looks
    administrator = Kubectl(environment["KUBECONFIG"], environment["PATH"])
    fairlead = Fairlead(administrator, environment)
    if not given:
        load_images(cluster)
        fairlead.install()
        fairlead.restart()
    elif not fairlead.is_installed():
        fairlead.install()
    return administrator


def _declare(kubectl: Kubectl, objects: Sequence[Manifest]) -> None:
    kubectl("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(objects))
    for obj in objects:
        kind, name = obj["kind"].lower(), obj["metadata"]["name"]
        wanted = "Authorized" if kind == "workflow" else "Reachable" if kind == "tool" else "Ready"

        def holds(kind: str = kind, name: str = name, wanted: str = wanted) -> bool:
            return bool(condition(kubectl.get(kind, name), wanted).get("status") == "True")

        until(f"{kind} {name} is {wanted}", holds, timeout_seconds=300)
