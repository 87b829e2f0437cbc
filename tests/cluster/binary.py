"""The one binary that is the whole node, built from Go modules and kept by the hash of its sources.

`kubenode/` links etcd, Kubernetes, CoreDNS, Helm, a NetworkPolicy controller and a volume provisioner; beside it go
`pause`, which holds a pod's namespaces, and `probe`, which the tests of this package run in pods. A cold build takes
minutes, so it happens once per source hash and machine, whoever asks first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.errors import Unsuitable
from tests.cluster.layout import cache_directory

SOURCES = Path(__file__).parent / "kubenode"
KUBERNETES = "v1.34.4"
COMMANDS = (
    "coredns",
    "directory-provisioner",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "network-policy",
)
_MAJOR, _MINOR, _ = KUBERNETES.removeprefix("v").split(".")
_VERSION = {"gitVersion": KUBERNETES, "gitMajor": _MAJOR, "gitMinor": _MINOR}
_LINKER_FLAGS = " ".join(
    ["-s", "-w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in _VERSION.items())]
)


def source_hash(sources: Path = SOURCES) -> str:
    """Hash the names and contents of all sources, and how they are linked."""
    digest = hashlib.sha256(" ".join((_LINKER_FLAGS, *COMMANDS)).encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(sources).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def cached() -> Path | None:
    """The directory with the built binaries, if these sources were built on this machine before."""
    directory = cache_directory() / f"kubenode-{source_hash()}"
    return directory if directory.is_dir() else None


def build() -> Path:
    """Return the directory with the built binaries, building them when nobody did before.

    Raises:
        Unsuitable: there is no Go.
        CommandFailed: Go could not build it.
    """
    if directory := cached():
        return directory
    if not shutil.which("go"):
        raise Unsuitable("no Go toolchain (`go`) on PATH, and the cluster's binary was not built before")
    directory = cache_directory() / f"kubenode-{source_hash()}"
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as lock:
        # Two builders would take twice as long each: the second waits for the first and finds its work.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.is_dir():
            for abandoned in directory.parent.glob(f"{directory.name}.*/"):  # by a builder that was killed
                shutil.rmtree(abandoned, ignore_errors=True)
            print("building the cluster's binary: minutes the first time", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f"{directory.name}.") as scratch:
                _compile(Path(scratch) / "bin")
                # Atomic: the directory is there wholly or not at all, also after a kill in the middle.
                (Path(scratch) / "bin").rename(directory)
    return directory


def _compile(target: Path) -> None:
    target.mkdir()
    env = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false", "GOWORK": "off"}
    for package, flags in ((".", _LINKER_FLAGS), ("./pause", "-s -w"), ("./probe", "-s -w")):
        output = target / ("kubenode" if package == "." else package.removeprefix("./"))
        run(
            *("go", "build", "-tags", "selinux,providerless", "-ldflags", flags, "-o", output, package),
            env=env,
            cwd=SOURCES,
            timeout_seconds=3600,
        )
    for command in COMMANDS:
        os.symlink("kubenode", target / command)
