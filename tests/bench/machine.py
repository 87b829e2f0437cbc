"""The machine that the numbers come from. It is part of every result: elsewhere they are others."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("aiohttp", "kopf", "mcp", "sqlalchemy", "uvloop")


def describe(folder: Path) -> dict[str, Any]:
    """Return size, load and software of this machine, and the file system of `folder`."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memoryMiB": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": platform.release(),
        "fileSystem": _file_system(folder),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "loadAverage": [round(load, 2) for load in os.getloadavg()],
        "commit": _commit(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(folder: Path) -> str:
    command = ("df", "--output=fstype", str(folder))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]


def _commit() -> str:
    command = ("git", "describe", "--always", "--dirty", "--exclude=*")
    found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return found.stdout.strip()
