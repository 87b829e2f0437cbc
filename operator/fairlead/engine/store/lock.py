"""Who owns the store: one process, for its whole life. Two engines never make progress on one run (G5).

The lock is the kernel's (`flock`): it goes when the process goes, however it dies. It is worth something only on a
file system of this machine, so network file systems are refused.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from fairlead.errors import StoreError, StoreLocked

NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "beegfs", "ocfs2"}
)


class StoreLock:
    """The exclusive lock of one store, held from `take` until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            StoreLocked: another process holds it.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise StoreLocked(f"another process holds {self._path.name}") from None
        self._file = file

    def release(self) -> None:
        """Give the lock back; the file stays, because removing it would let two processes hold two locks."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def file_system(path: Path, mountinfo: str) -> str:
    """Return the type of the file system that `path` is on, as /proc/self/mountinfo tells it ("" if it does not)."""
    found, depth = "", -1
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        mount_point = Path(fields.split()[4].encode().decode("unicode_escape"))
        if path.is_relative_to(mount_point) and len(mount_point.parts) >= depth:
            found, depth = rest.split()[0], len(mount_point.parts)
    return found


def refuse_network_file_system(path: Path, mountinfo: str) -> None:
    """Check that locks mean something where the store will be.

    Raises:
        StoreError: the directory is on a network file system.
    """
    kind = file_system(path.resolve(), mountinfo)
    if kind in NETWORK_FILE_SYSTEMS or (kind.startswith("fuse.") and kind != "fuse.overlayfs"):
        raise StoreError(
            f"{path} is on a network file system ({kind}), where locks do not guard the store; "
            "use a block volume (ReadWriteOnce)"
        )
