"""The configuration files of the node: containerd, its network plugin, the kubelet, and everybody's kubeconfig.

The kubelet, CNI and kubeconfigs are written as JSON, which YAML includes.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.cluster.layout import DNS_SERVICE, POD_CIDR, Layout

PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
KUBECONFIG_USERS = ("admin", "kubelet", "controller-manager", "scheduler", "proxy")


def write(layout: Layout) -> None:
    """Write all of them; the certificates exist already."""
    cni = layout.etc / "cni"
    cni.mkdir(parents=True)
    (layout.etc / "containerd.toml").write_text(_containerd(layout, cni))
    _write_json(cni / "10-bridge.conflist", _bridge(layout))
    _write_json(layout.etc / "kubelet.json", _kubelet(layout))
    for user in KUBECONFIG_USERS:
        _write_json(layout.etc / f"{user}.kubeconfig", _kubeconfig(layout, user))


def cni_plugins() -> Path | None:
    """The directory that holds the network plugins, if one does."""
    return next((path for path in CNI_PLUGINS if (path / "bridge").exists()), None)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))


def _containerd(layout: Layout, cni: Path) -> str:
    def text(value: object) -> str:  # a JSON string is a TOML string
        return json.dumps(str(value))

    return f"""\
version = 2
root = {text(layout.data / "containerd")}
state = {text(layout.run / "containerd")}
[grpc]
  address = {text(layout.socket)}
[plugins."io.containerd.internal.v1.opt"]
  path = {text(layout.data / "opt")}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {text(PAUSE_IMAGE)}
  # Without CAP_SYS_RESOURCE nobody may lower an OOM score.
  restrict_oom_score_adj = true
  # Otherwise pods' namespaces lie in /run/netns, and nothing tells whose they are.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = {text(layout.run / "runc")}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {text(cni_plugins())}
    conf_dir = {text(cni)}
"""


def _bridge(layout: Layout) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.data / "ipam"),
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True, "hairpinMode": True}
    return {
        "cniVersion": "1.0.0",
        "name": "bridge",
        "plugins": [{**bridge, "ipam": addresses}, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }


def _kubelet(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.handle}",
        "containerRuntimeEndpoint": f"unix://{layout.socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet.key"),
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
        "resolvConf": "",
        "podLogsDir": str(layout.data / "podlogs"),
        # Images come from `load` alone: one that was collected as garbage could not be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},
        "maxPods": 250,
        "serializeImagePulls": False,
    }


def _kubeconfig(layout: Layout, user: str) -> dict[str, Any]:
    def encoded(file: str) -> str:  # inside, so that a kubeconfig can be copied elsewhere
        return base64.b64encode((layout.pki / file).read_bytes()).decode()

    cluster = {"server": layout.server, "certificate-authority-data": encoded("ca.crt")}
    credentials = {"client-certificate-data": encoded(f"{user}.crt"), "client-key-data": encoded(f"{user}.key")}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": layout.handle, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": layout.handle, "context": {"cluster": layout.handle, "user": user}}],
        "current-context": layout.handle,
    }
