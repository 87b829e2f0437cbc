"""The base image where there is no Docker: a minimal Debian with its own Python, made by mmdebstrap.

With Docker the Dockerfile's own base is used. Both have `python3` 3.11; the locked packages fit both.
"""

from __future__ import annotations

from pathlib import Path

from images.cache import Cache, key
from images.commands import require, run

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates", "libstdc++6", "libgomp1")  # the last two for wheels that bring no copy
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
KEPT = ("/usr/share/doc/*/copyright",)
# Without this hook the base gets usrmerge, and with it all of Perl: 50 MB.
HOOKS = "/usr/share/mmdebstrap/hooks/merged-usr"
DOCKERFILE = "FROM scratch\nADD base.tar /\n"


def context(cache: Cache) -> Path:
    """Return a folder with `base.tar` and a Dockerfile that unpacks it. Making it takes half a minute."""
    command = [
        "mmdebstrap",
        "--variant=essential",
        f"--include={','.join(PACKAGES)}",
        f"--hook-dir={HOOKS}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in KEPT),
        SUITE,
    ]

    def make(folder: Path) -> None:
        require("mmdebstrap")
        run([*command, folder / "base.tar"])
        (folder / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")

    return cache.get("base", key(" ".join(command), DOCKERFILE), make)
