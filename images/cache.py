"""Results kept by the hash of what they were made from, so that what has not changed is not made again.

A folder `NAME-KEY` is there completely or not at all: it is made under another name and renamed at the end. One build
at a time holds the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

KEPT = 3  # results of each name; older ones are removed


class Cache:
    """Folders of results below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of_user(cls) -> Cache:
        """Return the cache of this user: `$XDG_CACHE_HOME/fairlead`, which is `~/.cache/fairlead` by default."""
        return cls(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fairlead" / "images")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other builds out; wait for the one that is running."""
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def get(self, name: str, key: str, make: Callable[[Path], None]) -> Path:
        """Return the folder `name-key`; when there is none, `make` fills an empty one."""
        target = self.folder / f"{name}-{key}"
        if not target.is_dir():
            unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.folder))
            try:
                unfinished.chmod(0o755)
                make(unfinished)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        os.utime(target)
        self._forget(name)
        return target

    def _forget(self, name: str) -> None:
        length = len(name) + 1 + KEY_LENGTH
        results = [path for path in self.folder.glob(f"{name}-*") if len(path.name) == length]
        for path in sorted(results, key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


KEY_LENGTH = 16


def key(*parts: str | bytes | Path | Iterable[Path]) -> str:
    """Hash texts, and the names, modes and contents of files (of folders: all files in them, without bytecode)."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str | bytes):
            _feed(digest, part if isinstance(part, bytes) else part.encode())
            continue
        for root in [part] if isinstance(part, Path) else part:
            for path in files(root):
                _feed(digest, str(path.relative_to(root.parent)).encode())
                _feed(digest, str(path.stat().st_mode & 0o111).encode())
                _feed(digest, path.read_bytes())
    return digest.hexdigest()[:KEY_LENGTH]


def files(root: Path) -> list[Path]:
    """Return a file, or all files of a folder in a fixed order; nothing when it is not there."""
    if root.is_file():
        return [root]
    return sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _feed(digest: hashlib._Hash, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "big") + data)
