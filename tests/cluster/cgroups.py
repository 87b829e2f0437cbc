"""The cluster's place in every cgroup hierarchy of the machine, be it version 1, 2 or the hybrid of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster.layout import Layout
from tests.cluster.mounts import mounts


def hierarchies() -> dict[Path, str]:
    """Where cgroup file systems are mounted, with their type: `cgroup` (one or more controllers) or `cgroup2`."""
    return {mount.path: mount.kind for mount in mounts() if mount.kind in ("cgroup", "cgroup2")}


def controllers() -> set[str]:
    """The resource controllers that pods can be held by."""
    found: set[str] = set()
    for root, kind in hierarchies().items():
        if kind == "cgroup2":
            found |= set((root / "cgroup.controllers").read_text().split())
        else:
            found |= set(root.name.split(","))
    return found


def create(layout: Layout) -> None:
    """Make the directory that the kubelet is told to stay in.

    The kubelet wants it in every hierarchy before it starts; a fresh cpuset holds no processor and accepts no process.
    """
    found = hierarchies()
    for root, kind in found.items():
        if kind == "cgroup2":
            if "cgroup" in found.values():
                continue  # hybrid: version 2 only tracks processes there, all controllers are with version 1
            for controller in (root / "cgroup.controllers").read_text().split():
                with suppress(OSError):  # not every controller can be passed on
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")
        (root / layout.handle).mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if kind == "cgroup" and (root / name).exists():
                (root / layout.handle / name).write_text((root / name).read_text())


def thaw(layout: Layout) -> None:
    """Let frozen processes run, for until then they do not die: a runtime killed while it updates leaves such."""
    for directory in _ours(layout):
        for name, running in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
            with suppress(OSError):  # the file exists only in the hierarchy that freezes
                if (directory / name).exists():
                    (directory / name).write_text(running)


def remove(layout: Layout) -> None:
    """Remove the directories that hold no process; `remains` tells of others."""
    for directory in _ours(layout):
        with suppress(OSError):
            directory.rmdir()


def remains(layout: Layout) -> list[str]:
    """The cluster's topmost directories that exist."""
    return [f"cgroup {root / layout.handle}" for root in hierarchies() if (root / layout.handle).exists()]


def _ours(layout: Layout) -> Iterator[Path]:
    """Every directory of the cluster, the deepest first."""
    for root in hierarchies():
        for directory, _, _ in os.walk(root / layout.handle, topdown=False):
            yield Path(directory)
