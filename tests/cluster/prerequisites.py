"""What this machine must have to run a cluster: found out, and on Debian and its kin installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator

from tests.cluster import binary, cgroups
from tests.cluster.commands import run, succeeds
from tests.cluster.configuration import cni_plugins
from tests.cluster.errors import Unsuitable

# Debian's package for each program that we or the components call.
PACKAGES = {
    "conntrack": "conntrack",
    "containerd": "containerd",
    "ctr": "containerd",
    "ip": "iproute2",
    "ipset": "ipset",
    "iptables": "iptables",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "runc": "runc",
    "setsid": "util-linux",
    "sysctl": "procps",
    "umount": "mount",
    "unshare": "util-linux",
}
_CNI_PACKAGE = "containernetworking-plugins"
_CONTROLLERS = {"cpu", "cpuset", "memory", "pids"}
# In a network namespace that ends with the shell: the same things that the node will do.
_KERNEL_TRIAL = (
    "ip link add trial type bridge && iptables -w -L && iptables -w -t nat -L && ipset create trial hash:ip"
    " && iptables -w -A INPUT -m set --match-set trial src -m conntrack --ctstate NEW -m comment --comment trial"
)


def missing_packages() -> list[str]:
    """The Debian packages that would bring what is not installed."""
    found = {package for program, package in PACKAGES.items() if not shutil.which(program)}
    if cni_plugins() is None:
        found.add(_CNI_PACKAGE)
    return sorted(found)


def problems() -> Iterator[str]:
    """Say what keeps this machine from running a cluster, a line each; looks only, changes nothing."""
    if sys.platform != "linux":
        yield "not Linux"
        return
    if os.geteuid() != 0:
        yield "not root"
        return
    if absent := _CONTROLLERS - cgroups.controllers():
        yield f"no cgroup controllers {', '.join(sorted(absent))} (is /sys/fs/cgroup mounted?)"
    if binary.cached() is None and not shutil.which("go"):
        yield "no Go toolchain (`go`) on PATH, and the cluster's binary was not built before"
    if missing := missing_packages():
        if not shutil.which("apt-get"):
            yield f"not installed, and no apt-get to install them with: {' '.join(missing)}"
    elif not succeeds("unshare", "--net", "sh", "-c", _KERNEL_TRIAL):
        yield "the kernel does not allow network namespaces with bridges, iptables and ipset"


def require() -> None:
    """Install missing packages and make sure that nothing else is missing.

    Raises:
        Unsuitable: something is; one line each.
        CommandFailed: apt-get could not install the packages.
    """
    if found := list(problems()):
        raise Unsuitable("\n".join(found))
    if packages := missing_packages():
        print("installing", *packages, file=sys.stderr)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", env=env, timeout_seconds=600)
        run("apt-get", "install", "--yes", "--no-install-recommends", *packages, env=env, timeout_seconds=1200)
        if missing := missing_packages():
            raise Unsuitable(f"installed, but not found on PATH ({os.environ.get('PATH')}): {' '.join(missing)}")
        if found := list(problems()):
            raise Unsuitable("\n".join(found))
