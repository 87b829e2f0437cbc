"""From a context to an archive: by Docker where an engine answers, else by buildah, which needs no daemon."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from images import base as debian
from images.cache import Cache, key
from images.catalog import Image
from images.commands import docker_answers, require, run


@dataclass(frozen=True, slots=True)
class Built:
    """An image in an archive that `docker load` and `ctr images import` take."""

    reference: str  # localhost/NAME:TAG
    id: str  # digest of the image's configuration; a registry or containerd gives the manifest's digest
    size: int  # bytes of the archive, which is not compressed
    archive: str


def build(image: Image, *, cache: Cache, out: Path, base: str | None, tag: str) -> Built:
    """Write `OUT/NAME.tar` and `OUT/NAME.json`; build only what is not in the cache.

    Raises:
        CommandError: a program is missing or failed.
    """
    reference = f"localhost/{image.repository}:{tag}"
    parts = {name: part(cache) for name, part in image.parts.items()}
    by_docker = docker_answers()
    base_context = None if base or by_docker else debian.context(cache)
    inputs = [path for paths in parts.values() for path in paths if not path.is_relative_to(cache.folder)]
    prepared = sorted({str(path.parent) for paths in parts.values() for path in paths if path not in inputs})
    foundation = base or str(base_context)
    image_key = key(reference, str(by_docker), foundation, *prepared, image.dockerfile, inputs)

    def make(folder: Path) -> None:
        context = folder / "context"
        _stage(parts, context)
        shutil.copyfile(image.dockerfile, context / "Dockerfile")
        archive = folder / "image.tar"
        if by_docker:
            image_id = _docker(context, reference, archive, base)
        else:
            image_id = _buildah(context, reference, archive, base, base_context, cache.folder / "storage")
        shutil.rmtree(context)
        built = Built(reference, image_id, archive.stat().st_size, f"{image.name}.tar")
        (folder / "image.json").write_text(json.dumps(asdict(built), indent=2) + "\n", encoding="utf-8")

    result = cache.get(f"image-{image.name}", image_key, make)
    out.mkdir(parents=True, exist_ok=True)
    for suffix in ("tar", "json"):
        _link(result / f"image.{suffix}", out / f"{image.name}.{suffix}")
    built = Built(**json.loads((result / "image.json").read_text(encoding="utf-8")))
    return Built(built.reference, built.id, built.size, str(out / built.archive))


def _stage(parts: dict[str, list[Path]], context: Path) -> None:
    """Put the parts together as hard links: nothing of the hundreds of megabytes is copied."""
    for name, paths in parts.items():
        target = context / name
        target.mkdir(parents=True)
        for path in paths:
            if path.is_dir():
                skipped = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, target / path.name, copy_function=_link, ignore=skipped, symlinks=True)
            else:
                _link(path, target / path.name)


def _link(source: str | Path, target: str | Path) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _docker(context: Path, reference: str, archive: Path, base: str | None) -> str:
    arguments = ["--build-arg", f"BASE_IMAGE={base}"] if base else []
    run(["docker", "build", "--quiet", "--tag", reference, *arguments, context])
    run(["docker", "save", "--output", archive, reference])
    return run(["docker", "image", "inspect", "--format", "{{.Id}}", reference]).strip()


def _buildah(
    context: Path, reference: str, archive: Path, base: str | None, base_context: Path | None, storage: Path
) -> str:
    require("buildah")
    # A storage of its own: what is built here shares nothing with the user's images and is removed with the cache.
    buildah: list[str | Path] = ["buildah", "--storage-driver", "vfs", "--root", storage, "--runroot", storage / "run"]
    bud = [*buildah, "bud", "--quiet", "--isolation", "chroot", "--layers", "--timestamp", "0"]
    if base_context is not None:
        base = f"localhost/{base_context.name}:latest"
        if not run([*buildah, "images", "--quiet", "--filter", f"reference={base}"]).strip():
            run([*bud, "--tag", base, base_context])
    run([*bud, "--build-arg", f"BASE_IMAGE={base}", "--tag", reference, context])
    run([*buildah, "push", "--quiet", reference, f"docker-archive:{archive}:{reference}"])
    image_id = run([*buildah, "inspect", "--type", "image", "--format", "{{.FromImageID}}", reference]).strip()
    run([*buildah, "rmi", "--prune"])
    return f"sha256:{image_id}"
