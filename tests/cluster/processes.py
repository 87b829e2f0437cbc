"""Processes of a cluster: starting them, finding them again, ending them.

There are no pid files: after a crash they lie. A process belongs to a cluster by what it carries: the mark in its
environment (components, and the shims that containerd starts), its network namespace (whatever entered the node's),
or its cgroup (everything that runs in pods).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import waiting
from tests.cluster.commands import launch
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout

MARK = "FAIRLEAD_TEST_CLUSTER"
_START_DEADLINE_SECONDS = 20
_KILL_DEADLINE_SECONDS = 60
_LOG_END_BYTES = 1500


@dataclass(frozen=True, slots=True)
class Component:
    """One long-running program of the node."""

    name: str
    argv: tuple[str, ...]


def start(layout: Layout, component: Component) -> None:
    """Start a component inside the node's network namespace, unless it runs.

    It is entered with nsenter: `ip netns exec` would mount another /sys and hide the cgroups.

    Raises:
        ClusterError: it did not become a process, or ended at once.
    """
    if find(layout, component) is not None:
        return
    launch(
        ["nsenter", f"--net={layout.netns}", "--", *component.argv],
        env={MARK: f"{layout.name}/{component.name}"},
        log=log_file(layout, component.name),
    )
    # Until nsenter has become the program it cannot be told from one that died.
    waiting.until(
        lambda: find(layout, component) is not None,
        what=f"{component.name} to start",
        timeout_seconds=_START_DEADLINE_SECONDS,
        details=lambda: log_end(layout, component.name),
        interval_seconds=0.005,
    )


def find(layout: Layout, component: Component) -> int | None:
    """The component's own process, not the helpers and shims that it started and that carry its mark too."""
    mark = f"{MARK}={layout.name}/{component.name}".encode()
    program = Path(component.argv[0]).name
    for pid in _pids():
        if mark in _environment(pid):
            first_word = os.fsdecode(_read(pid, "cmdline").partition(b"\0")[0])
            if Path(first_word).name == program:
                return pid
    return None


def end(layout: Layout, component: Component, with_signal: signal.Signals) -> None:
    """Send a component a signal that ends it, and wait until it is gone.

    Raises:
        ClusterError: it did not end.
    """
    pid = find(layout, component)
    if pid is None:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, with_signal)
    waiting.until(
        lambda: find(layout, component) is None,
        what=f"the end of {component.name} (pid {pid})",
        timeout_seconds=_KILL_DEADLINE_SECONDS,
        details=lambda: log_end(layout, component.name),
    )


def send(layout: Layout, component: Component, which: signal.Signals) -> None:
    """Send a component a signal that it survives.

    Raises:
        ClusterError: it does not run.
    """
    pid = find(layout, component)
    if pid is None:
        raise ClusterError(f"{component.name} does not run")
    os.kill(pid, which)


def members(layout: Layout) -> set[int]:
    """All processes of the cluster, except this one and those that it descends from."""
    mark = f"{MARK}={layout.name}/".encode()
    network = _identity(layout.netns)
    return {pid for pid in _pids() if _belongs(pid, mark, network, layout.handle)} - set(_ancestry())


def kill_all(layout: Layout) -> None:
    """Kill the cluster's processes, and those that they start meanwhile, until there are none.

    Raises:
        ClusterError: some would not die.
    """
    mark = f"{MARK}={layout.name}/".encode()

    def killed() -> bool:
        found = members(layout)
        network = _identity(layout.netns)
        for pid in found:
            # A number can pass to another process between look and kill; a pidfd cannot, so look again behind it.
            with suppress(ProcessLookupError), _pidfd(pid) as descriptor:
                if _belongs(pid, mark, network, layout.handle):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return not found

    waiting.until(
        killed,
        what=f"the processes of cluster {layout.name} to die",
        timeout_seconds=_KILL_DEADLINE_SECONDS,
        details=lambda: f"still there: {sorted(members(layout))}",
    )


def log_file(layout: Layout, component: str) -> Path:
    """Where a component's output goes."""
    return layout.log / f"{component}.log"


def log_end(layout: Layout, component: str) -> str:
    """The last lines of a component's log, for an error message."""
    try:
        with log_file(layout, component).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_END_BYTES))
            return f"--- end of {log_file(layout, component)}\n{log.read().decode(errors='replace')}"
    except FileNotFoundError:
        return f"({component} left no log)"


def dead(layout: Layout, components: Sequence[Component]) -> list[str]:
    """The names of the components that do not run."""
    return [component.name for component in components if find(layout, component) is None]


def require_alive(layout: Layout, components: Sequence[Component]) -> None:
    """Raise with the log's end of a component that died.

    Raises:
        ClusterError: one did.
    """
    for name in dead(layout, components):
        raise ClusterError(f"{name} died\n{log_end(layout, name)}")


@contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _pids() -> Iterator[int]:
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def _belongs(pid: int, mark: bytes, network: tuple[int, int] | None, handle: str) -> bool:
    if any(variable.startswith(mark) for variable in _environment(pid)):
        return True
    if network is not None and _identity(Path(f"/proc/{pid}/ns/net")) == network:
        return True
    paths = (line.rpartition(":")[2] for line in os.fsdecode(_read(pid, "cgroup")).splitlines())
    return any(f"{path}/".startswith(f"/{handle}/") for path in paths)


def _environment(pid: int) -> list[bytes]:
    return _read(pid, "environ").split(b"\0")


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:  # it ended meanwhile, or is a zombie
        return b""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _ancestry() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        status = os.fsdecode(_read(pid, "stat"))
        # The second field, the command in parentheses, may hold anything: count from its end.
        pid = int(status.rpartition(")")[2].split()[1]) if status else 0
