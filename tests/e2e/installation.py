"""Fairlead as installed for tests: our images on the shared cluster and the chart, once per session.

A test that uninstalls, upgrades or breaks the operator puts it back, or takes a cluster of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, CommandFailed
from tests.cluster.commands import run
from tests.e2e.kubectl import Kubectl

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/fairlead"
SYSTEM = "fairlead-system"
RELEASE = "fairlead"
IMAGE = "localhost/fairlead:dev"
SERVERS_IMAGE = "localhost/fairlead-test-servers:dev"
# The CRDs are there already, applied by the fixture `crds`. What only a resync heals shall not take a minute.
FOR_TESTS = ("--set", "crds.enabled=false", "--set", "operator.resyncSeconds=10")
RUN = "workflowruns.fairlead.dev"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


@dataclass(frozen=True)
class Fairlead:
    """A running installation.

    Attributes:
        kubectl: the administrator.
        environment: KUBECONFIG and a PATH that finds kubectl and helm.
    """

    kubectl: Kubectl
    environment: Mapping[str, str]

    def helm(self, *words: str, timeout_seconds: float = 300) -> str:
        """Run helm in the release's namespace."""
        options = ("--namespace", SYSTEM)
        return run("helm", *words, *options, env=dict(self.environment), timeout_seconds=timeout_seconds)

    def install(self, *options: str) -> None:
        """Install or upgrade the chart from the checkout and wait until the operator runs it."""
        owned = ("--take-ownership", "--force-conflicts")  # the CRDs may be there without us: other tests apply them
        given = ("--set", f"image.name={IMAGE}", "--create-namespace", *owned, "--wait", "--timeout", "180s", *options)
        self.helm("upgrade", "--install", RELEASE, str(CHART), *given)

    def is_installed(self) -> bool:
        """Tell whether there is a release."""
        return RELEASE in self.helm("list", "--short").split()

    def restart(self) -> None:
        """Have the operator and every engine take the image that was loaded last."""
        self.kubectl.within(SYSTEM)("rollout", "restart", "deployment/fairlead-operator")
        self.kubectl.within(SYSTEM)("rollout", "status", "deployment/fairlead-operator", "--timeout=120s")


def load_images(cluster: Cluster) -> None:
    """Build our images (what is unchanged is not built again) and bring them onto the cluster's node."""
    out = ROOT / "build/images"
    names = ("fairlead", "test-servers")
    run(str(ROOT / ".venv/bin/python"), "-m", "images", "build", *names, "--out", str(out), timeout_seconds=1800)
    for name in names:
        cluster.load(out / f"{name}.tar")


def until(what: str, holds: Callable[[], Any], *, timeout_seconds: float = 120, every_seconds: float = 0.25) -> Any:
    """Poll until `holds()` is truthy and return it.

    Raises:
        AssertionError: it was not in time; names `what`.
    """
    ends = time.monotonic() + timeout_seconds
    while not (found := holds()):
        assert time.monotonic() < ends, f"not in {timeout_seconds:.0f} s: {what}"
        time.sleep(every_seconds)
    return found


def create_run(kubectl: Kubectl, workflow: str, /, **values: Any) -> str:
    """Create a run and return its name."""
    manifest = {
        "apiVersion": "fairlead.dev/v1alpha1",
        "kind": "WorkflowRun",
        "metadata": {"generateName": f"{workflow}-"},
        "spec": {"workflow": workflow, "input": values},
    }
    return str(kubectl.create(manifest)["metadata"]["name"])


def finished(kubectl: Kubectl, name: str, *, timeout_seconds: float = 180) -> dict[str, Any]:
    """Wait for a run's end and return the object."""
    kubectl(
        "wait",
        "--for=condition=Finished",
        f"{RUN}/{name}",
        f"--timeout={timeout_seconds:.0f}s",
        timeout_seconds=timeout_seconds + 10,
    )
    return kubectl.get(RUN, name)


def condition(obj: Mapping[str, Any], type_: str) -> dict[str, Any]:
    """Return one of an object's conditions, empty when it is not there."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def ledger(kubectl: Kubectl, service: str = "fairlead-tool-ledger", port: int = 8080) -> list[dict[str, Any]]:
    """Return what the ledger server of a namespace has really done."""
    path = f"/api/v1/namespaces/{kubectl.namespace}/services/{service}:{port}/proxy/ledger"

    def answer_of() -> Any:
        """Return the answer; None while the API server knows of no endpoint, as right after its own start."""
        try:
            return json.loads(kubectl("get", "--raw", path))
        except CommandFailed as failed:
            if "no endpoints available" not in str(failed):
                raise
            return None

    answer = until(f"{service} answers", answer_of, timeout_seconds=30)
    return list(answer["entries"] if isinstance(answer, dict) else answer)
