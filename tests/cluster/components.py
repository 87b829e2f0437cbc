"""The node's long-running programs and how each is started."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.layout import POD_CIDR, SERVICE_CIDR, Layout
from tests.cluster.processes import Component

ETCD = "http://127.0.0.1:2379"
RUNTIME = ("containerd",)
CONTROL_PLANE = ("etcd", "apiserver")
# These need an API server that answers; in its absence they would back off or end.
CLIENTS = ("kubelet", "controller-manager", "scheduler", "proxy", "provisioner")
# This one ends when it does not find its Node.
NODE_CLIENTS = ("network-policy",)


def components(layout: Layout) -> dict[str, Component]:
    """All of them by name, in the order in which they start."""
    programs: dict[str, tuple[str | Path, ...]] = {
        "containerd": ("containerd", "--config", layout.etc / "containerd.toml"),
        "etcd": _etcd(layout),
        "apiserver": _apiserver(layout),
        "controller-manager": _controller_manager(layout),
        "scheduler": (layout.bin / "kube-scheduler", _kubeconfig(layout, "scheduler"), "--leader-elect=false"),
        "kubelet": _kubelet(layout),
        "proxy": _proxy(layout),
        "network-policy": _network_policy(layout),
        "provisioner": (
            layout.bin / "directory-provisioner",
            _kubeconfig(layout, "admin"),
            f"--root={layout.volumes}",
        ),
    }
    return {name: Component(name, tuple(str(word) for word in argv)) for name, argv in programs.items()}


def _kubeconfig(layout: Layout, user: str) -> str:
    return f"--kubeconfig={layout.etc / f'{user}.kubeconfig'}"


def _etcd(layout: Layout) -> tuple[str | Path, ...]:
    return (
        layout.bin / "etcd",
        f"--data-dir={layout.data / 'etcd'}",
        f"--listen-client-urls={ETCD}",
        f"--advertise-client-urls={ETCD}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",  # a test cluster does not outlive a crash of the machine
        "--log-level=warn",
    )


def _apiserver(layout: Layout) -> tuple[str | Path, ...]:
    pki = layout.pki
    return (
        layout.bin / "kube-apiserver",
        f"--etcd-servers={ETCD}",
        "--bind-address=0.0.0.0",
        f"--advertise-address={layout.node_address}",
        "--secure-port=6443",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'admin.crt'}",
        f"--kubelet-client-key={pki / 'admin.key'}",
        "--kubelet-preferred-address-types=InternalIP",  # no DNS knows the node: logs and exec would fail
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki / 'service-account.pub'}",
        f"--service-account-signing-key-file={pki / 'service-account.key'}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--requestheader-client-ca-file={pki / 'ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
    )


def _controller_manager(layout: Layout) -> tuple[str | Path, ...]:
    kubeconfig = layout.etc / "controller-manager.kubeconfig"
    return (
        layout.bin / "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--service-account-private-key-file={layout.pki / 'service-account.key'}",
        f"--root-ca-file={layout.pki / 'ca.crt'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        f"--cluster-cidr={POD_CIDR}",
        "--allocate-node-cidrs",
    )


def _kubelet(layout: Layout) -> tuple[str | Path, ...]:
    return (
        layout.bin / "kubelet",
        f"--config={layout.etc / 'kubelet.json'}",
        _kubeconfig(layout, "kubelet"),
        f"--hostname-override={layout.node_name}",
        f"--node-ip={layout.node_address}",
        f"--root-dir={layout.data / 'kubelet'}",
        f"--cert-dir={layout.data / 'kubelet-pki'}",
    )


def _proxy(layout: Layout) -> tuple[str | Path, ...]:
    return (
        layout.bin / "kube-proxy",
        _kubeconfig(layout, "proxy"),
        f"--cluster-cidr={POD_CIDR}",
        f"--hostname-override={layout.node_name}",
        "--proxy-mode=iptables",
        # Zero leaves the host's conntrack limits alone; they are not ours to set, and may be forbidden.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    )


def _network_policy(layout: Layout) -> tuple[str | Path, ...]:
    return (
        layout.bin / "network-policy",
        _kubeconfig(layout, "admin"),
        f"--hostname-override={layout.node_name}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--enable-cni=false",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--iptables-sync-period=60s",
    )
