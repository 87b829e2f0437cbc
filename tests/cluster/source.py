"""The cluster from source modules: one node in its own network namespace, up and down as a whole.

`up` starts what `components.py` lists, in the order in which one needs the other, and waits for a Ready node with
DNS. There is no repair: a cluster that is not healthy is cleared away wholly and started afresh, which is what makes
`up` after a crash as good as the first.
"""

from __future__ import annotations

import fcntl
import json
import signal
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.cluster import (
    api,
    binary,
    cgroups,
    configuration,
    images,
    network,
    pki,
    prerequisites,
    processes,
    remains,
    waiting,
)
from tests.cluster.commands import run
from tests.cluster.components import CLIENTS, CONTROL_PLANE, NODE_CLIENTS, RUNTIME, components
from tests.cluster.errors import ClusterError
from tests.cluster.layout import DNS_SERVICE, Layout

MANIFESTS = Path(__file__).parent / "manifests"
_START_SECONDS = 180
_RECOVERY_SECONDS = 60
_DNS = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"


class SourceCluster:
    """A single-node cluster on this machine, made of the binary that this package builds."""

    kind = "source"

    def __init__(self, name: str, address: str = "") -> None:
        """Name a cluster; nothing starts yet.

        Args:
            name: tells clusters on one machine apart.
            address: a /30 for the link between host and node; without, that of the running cluster or one derived
                from the name.
        """
        self.layout = Layout(name, address or _recorded_address(Layout(name)))
        self.components = components(self.layout)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.layout.kubeconfig

    @property
    def host_address(self) -> str:
        """The host as pods see it: what listens there is reachable where NetworkPolicies allow."""
        return self.layout.host_address

    @property
    def node_address(self) -> str:
        """The node as the host sees it: NodePorts and the API server."""
        return self.layout.node_address

    def environment(self) -> Mapping[str, str]:
        """What to set for kubectl and helm; PATH is what to put in front of it."""
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": str(self.layout.bin)}

    def up(self) -> None:
        """Have a healthy cluster, at once if it is there already.

        Raises:
            Unsuitable: this machine cannot run one.
            ClusterError: a component did not start; the text ends with its log.
        """
        with self._lock():
            if self._is_up():
                return
            prerequisites.require()
            built = binary.build()
            remains.clear(self.layout)
            self._prepare(built)
            self._start()
            self.layout.record.write_text(json.dumps({"address": self.layout.address, "binary": str(built)}))

    def down(self) -> None:
        """Leave nothing of the cluster on this machine but the built binary, whatever state it is in."""
        with self._lock():
            remains.clear(self.layout)

    def load(self, archive: Path) -> list[images.Image]:
        """Make the images of a docker or OCI archive usable in the cluster.

        Raises:
            ClusterError: the cluster does not run, or the archive is none.
        """
        if not self.layout.socket.exists():
            raise ClusterError(f"cluster {self.layout.name} is not up")
        return images.load(self.layout, archive)

    def complaints(self) -> list[str]:
        """Say what is not as it should be in a cluster that should be up; empty when nothing is."""
        found = [f"{name} does not run" for name in self._dead()]
        if not api.ready(self.layout):
            found.append("the API server is not ready")
        elif not api.has_condition(self.layout, self._node, "Ready"):
            found.append("the node is not Ready")
        elif not api.has_condition(self.layout, _DNS, "Available"):
            found.append("DNS is not available")
        return found

    def stop_process(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Make a component die, as a fault; `start_process` ends the fault.

        Raises:
            ClusterError: there is no such component, or it does not die.
        """
        processes.end(self.layout, self._component(name), with_signal)

    def start_process(self, name: str) -> None:
        """Start a component again and wait until it does its work.

        Raises:
            ClusterError: there is no such component, or it does not start.
        """
        self._launch(name)
        if name == "containerd":
            self._await_containerd()
        if name in CONTROL_PLANE and processes.find(self.layout, self.components["apiserver"]):
            self._await_apiserver()

    def signal_process(self, name: str, with_signal: signal.Signals) -> None:
        """Send a component a signal that it survives: SIGSTOP makes it hang, SIGCONT lets it go on.

        Raises:
            ClusterError: there is no such component, or it does not run.
        """
        processes.send(self.layout, self._component(name), with_signal)

    def _is_up(self) -> bool:
        """Whether the cluster came up wholly and still works.

        A dead component is final. One that is merely slow, on a busy machine, is waited for: others may be using the
        cluster, and starting it afresh would take it from them.
        """
        if not self.layout.record.exists() or self._dead():
            return False
        try:
            waiting.until(
                lambda: self._dead() or not self.complaints(),
                what=f"cluster {self.layout.name} to recover",
                timeout_seconds=_RECOVERY_SECONDS,
            )
        except ClusterError:
            return False
        return not self._dead()

    def _dead(self) -> list[str]:
        return processes.dead(self.layout, list(self.components.values()))

    @property
    def _node(self) -> str:
        return f"/api/v1/nodes/{self.layout.node_name}"

    def _component(self, name: str) -> processes.Component:
        if name not in self.components:
            raise ClusterError(f"no component {name!r}; there are {', '.join(self.components)}")
        return self.components[name]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; the next finds what the last one left."""
        self.layout.root.mkdir(parents=True, exist_ok=True)
        with self.layout.lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _prepare(self, built: Path) -> None:
        layout = self.layout
        for directory in (layout.run, layout.state, layout.etc, layout.log, layout.data, layout.volumes):
            directory.mkdir(parents=True, mode=0o755)
        layout.bin.symlink_to(built)
        network.create(layout)
        cgroups.create(layout)
        pki.create(layout)
        configuration.write(layout)

    def _start(self) -> None:
        for name in (*RUNTIME, *CONTROL_PLANE):
            self._launch(name)
        self._await_containerd()
        pause = images.pack(self.layout.bin / "pause", self.layout.data / "pause.tar", name=configuration.PAUSE_IMAGE)
        images.load(self.layout, pause)
        self._await_apiserver()
        for name in CLIENTS:
            self._launch(name)
        kubeconfig = {"KUBECONFIG": str(self.kubeconfig)}
        run(self.layout.bin / "kubectl", "apply", "--filename=-", stdin=self._manifests(), env=kubeconfig)
        self._await(lambda: api.get(self.layout, self._node) is not None, "the Node to register", alive=CLIENTS)
        for name in NODE_CLIENTS:
            self._launch(name)
        self._await(lambda: not self.complaints(), "a Ready node with DNS", alive=list(self.components))

    def _launch(self, name: str) -> None:
        processes.start(self.layout, self._component(name))

    def _await_containerd(self) -> None:
        self._await(lambda: images.answers(self.layout), "containerd", alive=RUNTIME)

    def _await_apiserver(self) -> None:
        self._await(lambda: api.ready(self.layout), "the API server", alive=CONTROL_PLANE)

    def _await(self, condition: Callable[[], bool], what: str, *, alive: Sequence[str]) -> None:
        """Wait for something that components work on, and fail at once when one of them dies."""
        workers = [self.components[name] for name in alive]

        def holds() -> bool:
            processes.require_alive(self.layout, workers)
            return condition()

        waiting.until(
            holds,
            what=what,
            timeout_seconds=_START_SECONDS,
            details=lambda: processes.log_end(self.layout, alive[-1]),
        )

    def _manifests(self) -> str:
        values = {
            "dns_service": DNS_SERVICE,
            "kubenode": str((self.layout.bin / "kubenode").resolve()),
            "pause_image": configuration.PAUSE_IMAGE,
        }
        texts = [path.read_text(encoding="utf-8") for path in sorted(MANIFESTS.glob("*.yaml"))]
        return string.Template("\n---\n".join(texts)).substitute(values)


def _recorded_address(layout: Layout) -> str:
    try:
        return str(json.loads(layout.record.read_text())["address"])
    except (OSError, ValueError, KeyError):  # never up, or crashed on the way
        return ""
