"""The node's network: a namespace of its own and one link to the host, nothing else.

Whatever the node does to iptables, ipsets, bridges and routes stays inside, and the node has no way out: the host
does not forward for it.
"""

from __future__ import annotations

import ipaddress
import json
from contextlib import suppress
from pathlib import Path

from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError, CommandFailed
from tests.cluster.layout import Layout


def create(layout: Layout) -> None:
    """Make the namespace and the link.

    Raises:
        ClusterError: the addresses are in use on this machine.
    """
    _require_free(layout)
    inside = ("ip", "-n", layout.handle)
    run("ip", "netns", "add", layout.handle)
    run("ip", "link", "add", layout.handle, "type", "veth", "peer", "name", "eth0", "netns", layout.handle)
    run("ip", "addr", "add", f"{layout.host_address}/30", "dev", layout.handle)
    run("ip", "link", "set", layout.handle, "up")
    run(*inside, "addr", "add", f"{layout.node_address}/30", "dev", "eth0")
    run(*inside, "link", "set", "eth0", "up")
    run(*inside, "link", "set", "lo", "up")
    run(*inside, "route", "add", "default", "via", layout.host_address)
    succeeds("modprobe", "--quiet", "br_netfilter")  # built in on some kernels
    sysctls = ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1")
    run("nsenter", f"--net={layout.netns}", "sysctl", "-qw", *sysctls)


def remove(layout: Layout) -> None:
    """Remove namespace and link, whatever is left of them."""
    if layout.netns.exists():
        succeeds("umount", "--lazy", layout.netns)  # after a reboot it may be a mere file
        layout.netns.unlink(missing_ok=True)
    if _link(layout).exists():
        with suppress(CommandFailed):  # the kernel removes it with the namespace, later than this look
            run("ip", "link", "delete", layout.handle)


def remains(layout: Layout) -> list[str]:
    """What exists of the cluster's network."""
    return [f"{what} {path.name}" for what, path in (("netns", layout.netns), ("link", _link(layout))) if path.exists()]


def _link(layout: Layout) -> Path:
    return Path("/sys/class/net") / layout.handle


def _require_free(layout: Layout) -> None:
    ours = ipaddress.ip_network(layout.address)
    for interface in json.loads(run("ip", "-json", "-4", "address")):
        for address in interface["addr_info"]:
            if ours.overlaps(ipaddress.ip_network(f"{address['local']}/{address['prefixlen']}", strict=False)):
                raise ClusterError(
                    f"{layout.address} overlaps {interface['ifname']} ({address['local']}/{address['prefixlen']}): "
                    "choose another with --address"
                )
