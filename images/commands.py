"""Other programs: run them, find them, install them. The only module here that starts a process."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

DEBIAN_PACKAGES = {"mmdebstrap": "mmdebstrap", "buildah": "buildah"}  # program -> the package that has it


class CommandError(Exception):
    """A program is missing or failed; the message is for the person at the terminal."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return what it printed.

    Raises:
        CommandError: it failed; the message ends with what it said.
    """
    words = [str(word) for word in command]
    result = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        said = "\n".join((result.stdout + result.stderr).strip().splitlines()[-30:])
        raise CommandError(f"{shlex.join(words)} failed ({result.returncode}):\n{said}")
    return result.stdout


def require(*programs: str) -> None:
    """Make sure that Debian's programs are there, by apt where this is root on a Debian.

    Raises:
        CommandError: one is missing; a line for each says what to install.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    packages = [DEBIAN_PACKAGES[program] for program in missing]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CommandError("\n".join(f"{name} is missing: apt-get install {name}" for name in packages))
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=env)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=env)


@cache
def uv() -> tuple[str, ...]:
    """Return the command that starts uv.

    Raises:
        CommandError: there is none.
    """
    if shutil.which("uv"):
        return ("uv",)
    command = (sys.executable, "-m", "uv")
    if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
        return command
    raise CommandError("uv is missing: pip install uv")


@cache
def docker_answers() -> bool:
    """Tell whether a Docker engine can build here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "version"], capture_output=True, check=False).returncode == 0
