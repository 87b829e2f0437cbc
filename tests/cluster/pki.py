"""The cluster's certificate authority and everybody's certificate, made with openssl."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.cluster.commands import run
from tests.cluster.layout import KUBERNETES_SERVICE, Layout

_VALID_DAYS = "365"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate speaks for: Kubernetes reads user and group from its subject."""

    file: str
    user: str
    group: str
    names: str = ""


def identities(layout: Layout) -> list[Identity]:
    """Everybody in the cluster who has a certificate."""
    service_names = ",".join(
        f"DNS:{name}" for name in ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
    )
    api_names = (
        f"{service_names},DNS:kubernetes.default.svc.cluster.local,"
        f"IP:127.0.0.1,IP:{KUBERNETES_SERVICE},IP:{layout.node_address}"
    )
    node = layout.node_name
    return [
        Identity("apiserver", "kube-apiserver", "kubernetes", api_names),
        Identity("admin", "kubernetes-admin", "system:masters"),
        Identity("kubelet", f"system:node:{node}", "system:nodes", f"DNS:{node},IP:{layout.node_address}"),
        Identity("controller-manager", "system:kube-controller-manager", "kubernetes"),
        Identity("scheduler", "system:kube-scheduler", "kubernetes"),
        Identity("proxy", "system:kube-proxy", "system:node-proxier"),
        Identity("front-proxy", "front-proxy-client", "front-proxy"),
    ]


def create(layout: Layout) -> None:
    """Make all keys and certificates afresh."""
    layout.pki.mkdir(mode=0o700)
    # Without a configuration of our own openssl would add the distribution's extensions to ours.
    (layout.pki / "openssl.cnf").write_text("[req]\ndistinguished_name = subject\n[subject]\n")
    _certificate(
        layout,
        "ca",
        "/CN=fairlead-test-ca",
        "basicConstraints=critical,CA:TRUE",
        "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
        "subjectKeyIdentifier=hash",
    )
    service_account = layout.pki / "service-account.key"
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(_issue, layout, identity) for identity in identities(layout)]
        run("openssl", "genrsa", "-out", service_account, "2048")
        run("openssl", "rsa", "-in", service_account, "-pubout", "-out", service_account.with_suffix(".pub"))
        for job in jobs:
            job.result()


def _issue(layout: Layout, identity: Identity) -> None:
    _certificate(layout, identity.file, f"/O={identity.group}/CN={identity.user}", *_extensions(identity), signed=True)


def _extensions(identity: Identity) -> Iterator[str]:
    yield "keyUsage=critical,digitalSignature,keyEncipherment"
    yield "extendedKeyUsage=serverAuth,clientAuth"
    yield "authorityKeyIdentifier=keyid"  # Python 3.13 refuses a certificate without
    if identity.names:
        yield f"subjectAltName={identity.names}"


def _certificate(layout: Layout, file: str, subject: str, *extensions: str, signed: bool = False) -> None:
    authority = ("-CA", str(layout.pki / "ca.crt"), "-CAkey", str(layout.pki / "ca.key")) if signed else ()
    run(
        *("openssl", "req", "-x509", "-config", layout.pki / "openssl.cnf", "-days", _VALID_DAYS, "-subj", subject),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", layout.pki / f"{file}.key", "-out", layout.pki / f"{file}.crt"),
        *(word for extension in extensions for word in ("-addext", extension)),
        *authority,
    )
