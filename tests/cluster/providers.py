"""Where a cluster comes from, best first.

USE_CONTEXT=1       the kubeconfig's current context: somebody else runs it, we only use it
Docker and kind     a kind cluster
otherwise           source modules, on this machine alone (source.py)
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from tests.cluster import prerequisites
from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError, Unsupported
from tests.cluster.images import Image, names_in
from tests.cluster.layout import Layout
from tests.cluster.source import SourceCluster


class Provider(Protocol):
    """What every kind of cluster can be asked; SourceCluster says what each thing means."""

    @property
    def kubeconfig(self) -> Path:
        """See SourceCluster."""
        ...

    @property
    def host_address(self) -> str:
        """See SourceCluster."""
        ...

    @property
    def node_address(self) -> str:
        """See SourceCluster."""
        ...

    def environment(self) -> Mapping[str, str]:
        """See SourceCluster."""
        ...

    def up(self) -> None:
        """See SourceCluster."""
        ...

    def down(self) -> None:
        """See SourceCluster."""
        ...

    def load(self, archive: Path) -> list[Image]:
        """See SourceCluster."""
        ...

    def complaints(self) -> list[str]:
        """See SourceCluster."""
        ...

    def stop_process(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """See SourceCluster."""
        ...

    def start_process(self, name: str) -> None:
        """See SourceCluster."""
        ...

    def signal_process(self, name: str, with_signal: signal.Signals) -> None:
        """See SourceCluster."""
        ...


class _Untouchable:
    """The parts of a node that is not ours to break."""

    def stop_process(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Refuse."""
        raise Unsupported(f"cannot stop {name} here: only in the cluster from source modules")

    def start_process(self, name: str) -> None:
        """Refuse."""
        raise Unsupported(f"cannot start {name} here: only in the cluster from source modules")

    def signal_process(self, name: str, with_signal: signal.Signals) -> None:
        """Refuse."""
        raise Unsupported(f"cannot signal {name} here: only in the cluster from source modules")


class ContextCluster(_Untouchable):
    """The cluster that the current kubeconfig context names; neither made nor removed by us."""

    @property
    def kubeconfig(self) -> Path:
        """The first file of KUBECONFIG, or kubectl's default."""
        return Path(os.environ.get("KUBECONFIG", "").split(os.pathsep)[0] or Path.home() / ".kube" / "config")

    @property
    def host_address(self) -> str:
        """Unknown."""
        raise Unsupported("a cluster that somebody else runs may not reach this host")

    @property
    def node_address(self) -> str:
        """The first node's internal address."""
        path = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
        return run("kubectl", "get", "nodes", f"--output=jsonpath={path}").strip()

    def environment(self) -> Mapping[str, str]:
        """kubectl and helm are the caller's own."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def up(self) -> None:
        """Check that it answers.

        Raises:
            ClusterError: it does not.
        """
        if found := self.complaints():
            raise ClusterError(found[0])

    def down(self) -> None:
        """Nothing: it was not brought up by us."""

    def complaints(self) -> list[str]:
        """Say that it does not answer, if so."""
        ready = succeeds("kubectl", "get", "--raw=/readyz", "--request-timeout=10s")
        return [] if ready else ["the current kubeconfig context does not answer"]

    def load(self, archive: Path) -> list[Image]:
        """Load into kind; other clusters have to pull.

        Raises:
            Unsupported: the context is not kind's.
        """
        context = run("kubectl", "config", "current-context").strip()
        if not context.startswith("kind-"):
            raise Unsupported(
                f"cannot load images into {context}: push those of {archive.name} to a registry that it reaches"
            )
        return _kind_load(context.removeprefix("kind-"), archive)


class KindCluster(_Untouchable):
    """A cluster that kind runs in Docker."""

    def __init__(self, name: str) -> None:
        """Name a cluster; nothing starts yet."""
        self._layout = Layout(name)

    @property
    def kubeconfig(self) -> Path:
        """A file of its own, so that the user's is left alone."""
        return self._layout.kubeconfig

    @property
    def host_address(self) -> str:
        """The gateway of kind's Docker network."""
        template = '{{range .IPAM.Config}}{{if .Gateway}}{{.Gateway}}{{"\\n"}}{{end}}{{end}}'
        addresses = run("docker", "network", "inspect", "kind", "--format", template).split()
        return next(address for address in addresses if ":" not in address)

    @property
    def node_address(self) -> str:
        """The control plane container's address."""
        template = "{{.NetworkSettings.Networks.kind.IPAddress}}"
        return run("docker", "inspect", f"{self._layout.name}-control-plane", "--format", template).strip()

    def environment(self) -> Mapping[str, str]:
        """kubectl and helm are the caller's own."""
        return {"KUBECONFIG": str(self.kubeconfig)}

    def up(self) -> None:
        """Have a cluster that answers; one that does not is made anew."""
        if not self.complaints():
            return
        self.down()
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        run(*self._kind("create"), "--wait=180s", timeout_seconds=900)

    def down(self) -> None:
        """Remove it."""
        run(*self._kind("delete"), timeout_seconds=300)
        self.kubeconfig.unlink(missing_ok=True)

    def complaints(self) -> list[str]:
        """Say that it does not answer, if so."""
        ready = self.kubeconfig.exists() and succeeds(
            *("kubectl", f"--kubeconfig={self.kubeconfig}", "get", "--raw=/readyz", "--request-timeout=10s")
        )
        return [] if ready else [f"kind cluster {self._layout.name} does not answer"]

    def load(self, archive: Path) -> list[Image]:
        """Load an archive into every node."""
        return _kind_load(self._layout.name, archive)

    def _kind(self, verb: str) -> tuple[str, ...]:
        return ("kind", verb, "cluster", f"--name={self._layout.name}", f"--kubeconfig={self.kubeconfig}")


def _kind_load(cluster: str, archive: Path) -> list[Image]:
    """Load an archive into kind and pin its images by digest, like in the cluster from source modules."""
    run("kind", "load", "image-archive", archive, f"--name={cluster}", timeout_seconds=600)
    images = []
    for node in run("kind", "get", "nodes", f"--name={cluster}").split():
        ctr = ("docker", "exec", node, "ctr", "--namespace=k8s.io", "images")
        digests = {line.split()[0]: line.split()[2] for line in run(*ctr, "list").splitlines()[1:]}
        images = [Image(name, digests[name]) for name in names_in(archive)]
        for image in images:
            run(*ctr, "tag", "--force", image.name, image.pinned)
    return images


def choose(name: str, address: str = "") -> Provider:
    """Return the cluster of that name from the best source that there is; nothing starts yet."""
    if os.environ.get("USE_CONTEXT") == "1":
        return ContextCluster()
    if _has_kind():
        return KindCluster(name)
    return SourceCluster(name, address)


def problems() -> list[str]:
    """Say what keeps a cluster from being had here, a line each."""
    if os.environ.get("USE_CONTEXT") == "1":
        return ContextCluster().complaints()
    if _has_kind():
        return []
    return list(prerequisites.problems())


def _has_kind() -> bool:
    return shutil.which("kind") is not None and succeeds("docker", "info")
