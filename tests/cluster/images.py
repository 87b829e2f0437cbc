"""Images without a registry: making tiny ones, and bringing archives into the node's containerd.

An image is usable by the kubelet as NAME and as NAME@DIGEST, since what we install refers to images by digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import waiting
from tests.cluster.commands import run, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

_ARCHIVE_LABEL = "fairlead.dev/archive"
_KUBELET_LABEL = "io.cri-containerd.image=managed"
_REGISTRY = re.compile(r"localhost|.*[.:].*")
_OCI_NAME = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the node."""

    name: str
    digest: str

    @property
    def pinned(self) -> str:
        """NAME@DIGEST, the tag cut off."""
        return f"{_repository(self.name)}@{self.digest}"


def pack(program: Path, target: Path, *, name: str) -> Path:
    """Write a docker archive of an image that holds one static program as its entry point."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        }
    ).encode()
    config_file, layer_file = f"{hashlib.sha256(config).hexdigest()}.json", f"{layer_digest}/layer.tar"
    manifest = json.dumps([{"Config": config_file, "RepoTags": [name], "Layers": [layer_file]}]).encode()
    target.write_bytes(_tar({config_file: config, layer_file: layer, "manifest.json": manifest}))
    return target


def names_in(archive: Path) -> list[str]:
    """The names in a docker or OCI archive, in full as containerd knows them.

    Raises:
        ClusterError: it is no archive of a named image.
    """
    try:
        with tarfile.open(archive) as tar:
            names = {full_name(name) for name in _names(tar)}
    except (OSError, tarfile.TarError) as error:
        raise ClusterError(f"{archive}: {error}") from None
    if not names:
        raise ClusterError(f"{archive}: holds no named image")
    return sorted(names)


def full_name(name: str) -> str:
    """Spell out what a short image name leaves to convention: registry, `library/`, the tag."""
    registry, slash, path = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif not _REGISTRY.fullmatch(registry):
        name = f"docker.io/{name}"
    elif registry == "docker.io" and "/" not in path:
        name = f"docker.io/library/{path}"
    return name if _repository(name) != name else f"{name}:latest"


def load(layout: Layout, archive: Path) -> list[Image]:
    """Import an archive, unless the same content was loaded before, and make its images usable.

    Raises:
        ClusterError: it is no archive of a named image, or containerd refuses it.
    """
    with archive.open("rb") as file:
        label = f"{_ARCHIVE_LABEL}={hashlib.file_digest(file, 'sha256').hexdigest()}"
    names = names_in(archive)
    if not _usable(layout, names, label):
        _ctr(layout, "images", "import", archive)
        for image in _images(layout, names):
            _ctr(layout, "images", "tag", "--force", image.name, image.pinned)
            _ctr(layout, "images", "label", image.name, label)
        waiting.until(
            lambda: _usable(layout, names, label),
            what=f"the kubelet's side of containerd to see {', '.join(names)}",
            timeout_seconds=60,
        )
    return _images(layout, names)


def answers(layout: Layout) -> bool:
    """Whether containerd is up."""
    return layout.socket.exists() and succeeds("ctr", "--address", layout.socket, "version")


def _names(tar: tarfile.TarFile) -> Iterator[str]:
    members = set(tar.getnames())
    if "manifest.json" in members:  # docker
        for image in _json(tar, "manifest.json"):
            yield from image.get("RepoTags") or []
    elif "index.json" in members:  # OCI
        for manifest in _json(tar, "index.json")["manifests"]:
            annotations = manifest.get("annotations", {})
            yield from [annotations[key] for key in _OCI_NAME if key in annotations][:1]


def _json(tar: tarfile.TarFile, member: str) -> Any:
    file = tar.extractfile(member)
    assert file is not None
    return json.load(file)


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _repository(name: str) -> str:
    """A name without tag or digest; a colon before the last slash is a port."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _ctr(layout: Layout, *argv: str | Path) -> str:
    return run("ctr", "--address", layout.socket, "--namespace", "k8s.io", *argv, timeout_seconds=600)


def _rows(layout: Layout) -> dict[str, str]:
    """What containerd lists, a line by image name: REF TYPE DIGEST SIZE PLATFORMS LABELS."""
    lines = _ctr(layout, "images", "list").splitlines()[1:]
    return {line.split()[0]: line for line in lines}


def _images(layout: Layout, names: list[str]) -> list[Image]:
    rows = _rows(layout)
    missing = [name for name in names if name not in rows]
    if missing:
        raise ClusterError(f"containerd imported the archive, but not as {', '.join(missing)}")
    return [Image(name, rows[name].split()[2]) for name in names]


def _usable(layout: Layout, names: list[str], label: str) -> bool:
    """Whether the images are those of the archive, and both names of each are known to the kubelet's side."""
    rows = _rows(layout)
    if not all(name in rows and label in rows[name] for name in names):
        return False
    wanted = [*names, *(Image(name, rows[name].split()[2]).pinned for name in names)]
    return all(_KUBELET_LABEL in rows.get(name, "") for name in wanted)
