"""The one place where this package starts programs and waits for them.

Long-running components are started through `processes.py`, which also ends here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import CommandFailed


def run(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_seconds: float = 120,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        argv: the program and its arguments.
        stdin: text for its standard input; empty without.
        env: added to this process's environment.
        cwd: where to run it.
        timeout_seconds: after which it is killed.

    Raises:
        CommandFailed: it ended with an error, took too long, or is not installed.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin or "",
            env={**os.environ, **(env or {})},
            cwd=cwd,
            timeout=timeout_seconds,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise CommandFailed(f"{words[0]}: not installed") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{_brief(words)}: no end after {timeout_seconds:g} s") from None
    if done.returncode:
        raise CommandFailed(f"{_brief(words)}: exit {done.returncode}\n{(done.stderr or done.stdout).strip()}")
    return done.stdout


def succeeds(*argv: str | Path, timeout_seconds: float = 30) -> bool:
    """Tell whether a program ends well, without a word."""
    try:
        run(*argv, timeout_seconds=timeout_seconds)
    except CommandFailed:
        return False
    return True


def launch(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
    """Start a program that outlives this one, as a child of init, its output appended to `log`."""
    with log.open("ab") as output:
        # With --fork the program is nobody's zombie when it dies, whatever process called `up`.
        subprocess.run(
            ["setsid", "--fork", *argv],
            env={**os.environ, **env},
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )


def _brief(words: Sequence[str]) -> str:
    text = " ".join(words)
    return text if len(text) <= 160 else text[:157] + "..."
