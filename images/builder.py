"""From folders and a Dockerfile to an archive: by Docker where an engine answers, else by buildah without a daemon."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from images import base as debian
from images import buildah
from images.cache import Cache, key
from images.catalog import Image
from images.commands import docker_answers, run


@dataclass(frozen=True, slots=True)
class Built:
    """An image in an archive that `docker load` and `ctr images import` take."""

    reference: str  # localhost/NAME:TAG
    id: str  # digest of the image's configuration; that of its manifest is known to whoever stores it
    size: int  # bytes of the archive, which is not compressed
    archive: str


def build(image: Image, *, cache: Cache, out: Path, base: str | None, tag: str) -> Built:
    """Write `OUT/NAME.tar` and `OUT/NAME.json`; build only what is not in the cache.

    Raises:
        CommandError: a program is missing or failed.
    """
    reference = f"localhost/{image.repository}:{tag}"
    by_docker = docker_answers()
    dependencies = {name: folder(cache) for name, folder in image.dependencies.items()}
    code = {name: folder(cache) for name, folder in image.code.items()}
    debian_context = None if base or by_docker else debian.context(cache)
    foundation = base or (debian_context.name if debian_context else "of the Dockerfile")
    dependencies_key = key(image.dockerfile, foundation, _identity(dependencies, cache))
    image_key = key(dependencies_key, reference, str(by_docker), _identity(code, cache))

    def make(folder: Path) -> None:
        context, archive = folder / "context", folder / "image.tar"
        _stage(dependencies | code, context)
        shutil.copyfile(image.dockerfile, context / "Dockerfile")
        if by_docker:
            image_id = _docker(context, reference, archive, base)
        else:
            storage = buildah.Storage(cache.folder / "storage")
            found = storage.base(debian_context) if debian_context is not None else foundation
            prepared = storage.dependencies(context, name=image.name, key=dependencies_key, base=found)
            image_id = storage.image(context, dependencies=prepared, reference=reference, archive=archive)
        shutil.rmtree(context)
        built = Built(reference, image_id, archive.stat().st_size, archive.name)
        (folder / "image.json").write_text(json.dumps(asdict(built), indent=2) + "\n", encoding="utf-8")

    result = cache.get(f"image-{image.name}", image_key, make)
    built = Built(**json.loads((result / "image.json").read_text(encoding="utf-8")))
    built = replace(built, archive=str(out / f"{image.name}.tar"))
    out.mkdir(parents=True, exist_ok=True)
    _link(result / "image.tar", built.archive)
    (out / f"{image.name}.json").write_text(json.dumps(asdict(built), indent=2) + "\n", encoding="utf-8")
    return built


def _identity(folders: dict[str, list[Path]], cache: Cache) -> str:
    """Hash what is copied. What lies in the cache is known by its folder's name; only the rest is read."""
    prepared = sorted(
        {path.parent.name for paths in folders.values() for path in paths if path.is_relative_to(cache.folder)}
    )
    scripts = [path for paths in folders.values() for path in paths if not path.is_relative_to(cache.folder)]
    return key(*prepared, scripts)


def _stage(folders: dict[str, list[Path]], context: Path) -> None:
    """Put the folders together as hard links: nothing of the hundreds of megabytes is copied."""
    skipped = shutil.ignore_patterns("__pycache__")
    for name, paths in folders.items():
        target = context / name
        target.mkdir(parents=True)
        for path in paths:
            if path.is_dir():
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
