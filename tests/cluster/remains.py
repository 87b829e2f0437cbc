"""What a cluster leaves on the machine, and clearing it away.

The same code serves an orderly `down` and one after a crash, so it relies on nothing but the cluster's name: it looks
at the machine, not at what `up` remembers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tests.cluster import cgroups, mounts, network, processes, waiting
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

# Kubernetes' own, not configurable: links into the pods' logs.
_CONTAINER_LOGS = Path("/var/log/containers")
_SHIM_ADDRESS = "containerd/io.containerd.runtime.v2.task/k8s.io/*/address"


def find(layout: Layout) -> list[str]:
    """Name everything of the cluster that exists on this machine, built binaries aside."""
    return [
        *(f"process {pid}" for pid in sorted(processes.members(layout))),
        *(f"mount {path}" for path in _mounts(layout)),
        *network.remains(layout),
        *cgroups.remains(layout),
        *(f"file {path}" for path in (layout.run, layout.state) if path.exists()),
        *(f"link {path}" for path in _log_links(layout)),
    ]


def clear(layout: Layout) -> None:
    """Remove everything that `find` finds.

    Raises:
        ClusterError: something cannot be removed; the text names it.
    """
    cgroups.thaw(layout)
    processes.kill_all(layout)
    for socket in list(_shim_sockets(layout)):
        socket.unlink(missing_ok=True)
    mounts.unmount(_mounts(layout))
    network.remove(layout)
    for link in list(_log_links(layout)):
        link.unlink(missing_ok=True)
    if held := _mounts(layout):
        # Deleting files now could delete through a mount what belongs to somebody else.
        raise ClusterError(f"cannot unmount {', '.join(map(str, held))}")
    for directory in (layout.run, layout.state):
        shutil.rmtree(directory, ignore_errors=True)
    waiting.until(
        lambda: _gone(layout),
        what=f"the end of cluster {layout.name}",
        timeout_seconds=30,
        details=lambda: "still there: " + ", ".join(find(layout)),
    )


def _gone(layout: Layout) -> bool:
    cgroups.remove(layout)  # a cgroup is busy until the kernel has reaped the last process in it
    return not find(layout)


def _mounts(layout: Layout) -> list[Path]:
    return mounts.below(layout.run, layout.state)


def _log_links(layout: Layout) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        for link in _CONTAINER_LOGS.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(layout.state):
                yield link


def _shim_sockets(layout: Layout) -> Iterator[Path]:
    """The sockets of containerd's shims: in one directory for all containerds, each named in its bundle."""
    for file in layout.run.glob(_SHIM_ADDRESS):
        with suppress(OSError):
            yield Path(file.read_text().removeprefix("unix://"))
