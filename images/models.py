"""The models and servers of the examples on this machine, for workflows that run without a cluster.

The paths never change, so that a file can name them; what they hold follows the lock.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from images import packages
from images.cache import Cache, key
from images.commands import run, uv
from images.packages import CHAT_MODEL, EMBED_MODEL, MODELS_LOCK, WEIGHT_PACKAGES, locked


def prepare(cache: Cache) -> dict[str, str]:
    """Lay out `~/.cache/fairlead/models` and return its paths by the variables that the servers read.

    Raises:
        CommandError: a program is missing or failed.
    """
    folder = cache.folder.parent / "models"
    folder.mkdir(exist_ok=True)
    _point(folder / "weights", packages.weights(cache))
    requirements = locked(MODELS_LOCK, without=WEIGHT_PACKAGES)
    stamp = folder / "venv" / "made-from"
    if not stamp.is_file() or stamp.read_text() != key(requirements):
        _make_environment(folder / "venv", requirements)
        stamp.write_text(key(requirements))
    return {
        "PYTHON": str(folder / "venv" / "bin" / "python"),
        "CHAT_MODEL": str(folder / "weights" / CHAT_MODEL),
        "EMBED_MODEL": str(folder / "weights" / EMBED_MODEL),
    }


def _point(link: Path, target: Path) -> None:
    if link.is_symlink() and link.resolve() == target.resolve():
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _make_environment(venv: Path, requirements: str) -> None:
    shutil.rmtree(venv, ignore_errors=True)
    run([*uv(), "venv", "--quiet", "--python", ">=3.11,<3.15", venv])
    listed = venv / "requirements.txt"
    listed.write_text(requirements, encoding="utf-8")
    install = [*uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    run([*install, "--python", venv / "bin" / "python", "-r", listed])
