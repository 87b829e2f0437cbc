"""What is mounted on this machine, and unmounting what a cluster left."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.cluster.commands import succeeds

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount point and its file system's type."""

    path: Path
    kind: str


def parse(table: str) -> list[Mount]:
    """Read the kernel's mountinfo table, see proc_pid_mountinfo(5)."""
    found = []
    for line in table.splitlines():
        before, _, after = line.partition(" - ")  # a varying number of optional fields ends with this
        path = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        found.append(Mount(Path(path), after.split()[0]))
    return found


def mounts() -> list[Mount]:
    """All mounts that this process sees, in the order in which they were made."""
    return parse(Path("/proc/self/mountinfo").read_text())


def below(*directories: Path) -> list[Path]:
    """Mount points at or below directories, the innermost and latest first."""
    found = [mount.path for mount in mounts() if any(mount.path.is_relative_to(place) for place in directories)]
    return found[::-1]


def unmount(paths: Sequence[Path]) -> None:
    """Detach them, also if something still uses them."""
    for path in paths:
        succeeds("umount", "--lazy", path)
