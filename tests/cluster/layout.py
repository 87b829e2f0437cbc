"""Everything about one cluster that follows from its name: paths, addresses, what its parts are called.

Pure; the other modules take a `Layout` and touch only what it names, which is what lets two clusters live side by
side and lets `down` know what is ours.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ClusterError

DEFAULT_NAME = "fairlead"
DEFAULT_ADDRESS = "10.250.0.0/30"

POD_CIDR = "10.244.0.0/24"
SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"

# Handles name network interfaces: 15 characters at most, and `fl-` takes three.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,10}[a-z0-9]")


def cache_directory() -> Path:
    """Where built binaries and, unless CLUSTER_DIR says otherwise, clusters live."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead"


def address_for(name: str) -> str:
    """Derive a /30 of 10.250.0.0/16 from a cluster's name; the default name has the first one."""
    if name == DEFAULT_NAME:
        return DEFAULT_ADDRESS
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    index = 1 + number % (2**14 - 1)
    return str(ipaddress.ip_network((int(ipaddress.ip_address("10.250.0.0")) + 4 * index, 30)))


@dataclass(frozen=True, slots=True)
class Layout:
    """One cluster's places and addresses.

    Raises:
        ClusterError: the name or the address cannot be used.
    """

    name: str = DEFAULT_NAME
    address: str = ""
    root: Path = field(default_factory=lambda: Path(os.environ.get("CLUSTER_DIR") or cache_directory() / "clusters"))

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"{self.name!r} is no cluster name: 2 to 12 of a-z, 0-9 and '-', beginning with a letter"
            )
        object.__setattr__(self, "root", self.root.resolve())
        object.__setattr__(self, "address", self.address or address_for(self.name))
        try:
            network = ipaddress.IPv4Network(self.address)
        except ValueError as error:
            raise ClusterError(f"--address {self.address}: {error}") from None
        if network.prefixlen != 30:
            raise ClusterError(f"--address {self.address}: needs exactly a /30, one end for the host, one for the node")

    @property
    def handle(self) -> str:
        """The name of the network namespace, the host's interface, the cgroups and the /run directory."""
        return f"fl-{self.name}"

    @property
    def host_address(self) -> str:
        """The host's end of the link: what pods dial to reach a server that a test runs on the host."""
        return str(ipaddress.IPv4Network(self.address)[1])

    @property
    def node_address(self) -> str:
        """The node's end: the API server and NodePorts."""
        return str(ipaddress.IPv4Network(self.address)[2])

    @property
    def node_name(self) -> str:
        """The name of the one Node."""
        return "node-1"

    @property
    def state(self) -> Path:
        """Everything that the cluster writes, outside of the checkout."""
        return self.root / self.name

    @property
    def lock(self) -> Path:
        """Held by `up` and `down`; beside the state, which comes and goes."""
        return self.root / f"{self.name}.lock"

    @property
    def record(self) -> Path:
        """Written last by `up`: a cluster without it never came up wholly."""
        return self.state / "cluster.json"

    @property
    def run(self) -> Path:
        """Sockets and mounts; short, because a socket's path has at most 107 characters."""
        return Path("/run") / self.handle

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.run / "containerd.sock"

    @property
    def netns(self) -> Path:
        """The network namespace in which everything runs."""
        return Path("/run/netns") / self.handle

    @property
    def bin(self) -> Path:
        """A link to the built binaries, so that a running cluster keeps the ones it was started with."""
        return self.state / "bin"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"

    @property
    def etc(self) -> Path:
        """Configuration files and kubeconfigs."""
        return self.state / "etc"

    @property
    def log(self) -> Path:
        """One log per component."""
        return self.state / "log"

    @property
    def data(self) -> Path:
        """What the components store."""
        return self.state / "data"

    @property
    def volumes(self) -> Path:
        """One directory per bound claim."""
        return self.data / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.etc / "admin.kubeconfig"

    @property
    def server(self) -> str:
        """The API server's URL, the same from the host and from the node."""
        return f"https://{self.node_address}:6443"
