"""A real Kubernetes for tests: where it comes from, how it starts, and how to break it.

    cluster = Cluster()                     # the shared one, named `fairlead`
    cluster.up()                            # at once when it is up already
    image = cluster.load(Path("x.tar"))[0]  # image.name, image.pinned
    cluster.kubectl("get", "pods")

A test that breaks things takes a cluster of its own, `Cluster("faults")`, and takes it down at its end: `up` of the
shared one would meanwhile find it broken and start it afresh under everyone else.

The command line is `python -m tests.cluster` (__main__.py). Only the standard library is imported, so that all of it
works before anything is installed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import providers
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError, CommandFailed, Unsuitable, Unsupported
from tests.cluster.images import Image
from tests.cluster.layout import DEFAULT_NAME

__all__ = ["Cluster", "ClusterError", "CommandFailed", "Image", "Unsuitable", "Unsupported", "why_not"]


class Cluster:
    """A test cluster, wherever it comes from (providers.py)."""

    def __init__(self, name: str = DEFAULT_NAME, *, address: str = "") -> None:
        """Name a cluster; nothing starts yet.

        Args:
            name: tells clusters on one machine apart.
            address: the /30 between host and node, where the one derived from the name is taken.
        """
        self.name = name
        self.provider = providers.choose(name, address)

    def up(self) -> Path:
        """Have it up and healthy, and return the path of the administrator's kubeconfig.

        Raises:
            Unsuitable: this machine cannot run one.
            ClusterError: it does not start.
        """
        self.provider.up()
        return self.kubeconfig

    def down(self) -> None:
        """Remove it wholly, whatever state it is in."""
        self.provider.down()

    def load(self, archive: Path) -> list[Image]:
        """Make the images of a docker or OCI archive usable, under NAME and NAME@DIGEST."""
        return self.provider.load(archive)

    def kubectl(self, *argv: str | Path, stdin: str | None = None, timeout_seconds: float = 120) -> str:
        """Run kubectl as the administrator and return what it printed.

        Raises:
            CommandFailed: it failed; the text ends with its error output.
        """
        return self._run("kubectl", *argv, stdin=stdin, timeout_seconds=timeout_seconds)

    def helm(self, *argv: str | Path, timeout_seconds: float = 300) -> str:
        """Run helm as the administrator and return what it printed.

        Raises:
            CommandFailed: it failed; the text ends with its error output.
        """
        return self._run("helm", *argv, stdin=None, timeout_seconds=timeout_seconds)

    def complaints(self) -> list[str]:
        """Say what is wrong with it; empty when it is up and healthy."""
        return self.provider.complaints()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.provider.kubeconfig

    @property
    def host_address(self) -> str:
        """This host as pods see it: a server that a test runs there is reachable where NetworkPolicies allow."""
        return self.provider.host_address

    @property
    def node_address(self) -> str:
        """The node as this host sees it: for NodePorts."""
        return self.provider.node_address

    def environment(self) -> dict[str, str]:
        """Variables for programs that use the cluster: KUBECONFIG, and a PATH that finds kubectl and helm."""
        variables = dict(self.provider.environment())
        if directory := variables.pop("PATH", ""):
            variables["PATH"] = f"{directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return variables

    def stop_process(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Make a component die: `apiserver`, `etcd`, `kubelet`, ... (components.py).

        Raises:
            Unsupported: the cluster is not from source modules.
        """
        self.provider.stop_process(name, with_signal)

    def start_process(self, name: str) -> None:
        """Start a component again and wait until it works."""
        self.provider.start_process(name)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Be without a component for the length of a block."""
        self.stop_process(name)
        try:
            yield
        finally:
            self.start_process(name)

    @contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """Have a component hang for the length of a block: its connections stay, nothing answers."""
        self.provider.signal_process(name, signal.SIGSTOP)
        try:
            yield
        finally:
            self.provider.signal_process(name, signal.SIGCONT)

    def _run(self, program: str, *argv: Any, stdin: str | None, timeout_seconds: float) -> str:
        return run(program, *argv, stdin=stdin, env=self.environment(), timeout_seconds=timeout_seconds)


def why_not() -> str:
    """Say in one line why there can be no cluster here, for a test that is skipped; empty when there can."""
    return "; ".join(providers.problems())
