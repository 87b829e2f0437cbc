"""Building without a daemon and without privileged mounts: `buildah` on plain folders.

On plain folders every layer is a full copy of everything below it. So an image is built in three steps that make one
layer each: the base, the dependencies, the code. The first two are kept; a change of code makes the third anew.
"""

from __future__ import annotations

from pathlib import Path

from images.commands import CommandError, require, run

LAST_STAGE = "\nFROM dependencies\n"


class Storage:
    """Images in a folder of our own: nothing is shared with other images of this machine."""

    def __init__(self, folder: Path) -> None:
        require("buildah")
        self._buildah: list[str | Path] = ["buildah", "--storage-driver", "vfs", "--root", folder]
        self._buildah += ["--runroot", folder / "run"]

    def base(self, context: Path) -> str:
        """Return the name of the base image, made from a folder `NAME-KEY` with a Dockerfile."""
        reference = f"localhost/{context.name}:latest"
        if not self._has(reference):
            self._build(context, context / "Dockerfile", reference)
            self._forget(context.name.rpartition("-")[0] + "-", keep=reference)
        return reference

    def dependencies(self, context: Path, *, name: str, key: str, base: str) -> str:
        """Return the name of the image that the first stage of the Dockerfile makes."""
        prefix = f"dependencies-of-{name}-"
        reference = f"localhost/{prefix}{key}:latest"
        if not self._has(reference):
            first, _ = _stages(context)
            file = context / "Dockerfile.dependencies"
            file.write_text(first, encoding="utf-8")
            self._build(context, file, reference, "--build-arg", f"BASE_IMAGE={base}")
            self._forget(prefix, keep=reference)
        return reference

    def image(self, context: Path, *, dependencies: str, reference: str, archive: Path) -> str:
        """Build the last stage upon `dependencies`, write the archive, and return the digest of the configuration."""
        _, last = _stages(context)
        file = context / "Dockerfile.code"
        file.write_text(f"FROM {dependencies}\n{last}", encoding="utf-8")
        image_id = self._build(context, file, reference)
        run([*self._buildah, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"])
        run([*self._buildah, "rmi", reference])
        return f"sha256:{image_id}"

    def _build(self, context: Path, file: Path, reference: str, *arguments: str) -> str:
        command = [*self._buildah, "bud", "--quiet", "--isolation", "chroot", "--layers=false", "--timestamp", "0"]
        return run([*command, *arguments, "--file", file, "--tag", reference, context]).strip().splitlines()[-1]

    def _has(self, reference: str) -> bool:
        return reference in self._references()

    def _references(self) -> list[str]:
        return run([*self._buildah, "images", "--format", "{{.Name}}:{{.Tag}}"]).split()

    def _forget(self, prefix: str, *, keep: str) -> None:
        for reference in self._references():
            if reference.startswith(f"localhost/{prefix}") and reference != keep:
                run([*self._buildah, "rmi", reference])


def _stages(context: Path) -> tuple[str, str]:
    """Split the Dockerfile before its last stage; both parts are given to buildah as files of their own."""
    first, found, last = (context / "Dockerfile").read_text(encoding="utf-8").rpartition(LAST_STAGE)
    if not found:
        raise CommandError("the Dockerfile has no line `FROM dependencies`")
    return first, last
