"""What each image is made of: a Dockerfile, and the folders that its COPY lines name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import packages
from images.cache import Cache, files
from images.packages import MODELS_LOCK, REPOSITORY, WEIGHT_PACKAGES, locked

RUNTIME_LOCK = REPOSITORY / "locks" / "runtime.txt"
MODEL_PACKAGES = WEIGHT_PACKAGES | {"numpy", "safetensors", "tokenizers", "xllamacpp"}
EXAMPLE_SERVERS = REPOSITORY / "examples" / "servers"
TEST_SERVERS = REPOSITORY / "tests" / "servers"

Part = Callable[[Cache], list[Path]]  # files and folders, to be put side by side into one folder of the context


@dataclass(frozen=True, slots=True)
class Image:
    """An image by the name under which it is built and the one it is pushed under."""

    name: str
    repository: str
    dockerfile: Path
    parts: Mapping[str, Part]


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def _scripts(*paths: Path) -> Part:
    return lambda _: [path for path in paths if files(path)]


IMAGES = {
    image.name: image
    for image in (
        Image(
            name="fairlead",
            repository="fairlead",
            dockerfile=REPOSITORY / "Dockerfile",
            parts={
                "site": lambda cache: _inside(packages.site(cache, locked(RUNTIME_LOCK))),
                "project": lambda cache: _inside(packages.project(cache)),
            },
        ),
        Image(
            name="examples",
            repository="fairlead-examples",
            dockerfile=EXAMPLE_SERVERS / "Dockerfile",
            parts={
                "weights": lambda cache: _inside(packages.weights(cache)),
                "site": lambda cache: _inside(packages.site(cache, locked(MODELS_LOCK, without=WEIGHT_PACKAGES))),
                "servers": _scripts(*sorted(EXAMPLE_SERVERS.glob("*.py")), EXAMPLE_SERVERS / "handbook.md"),
            },
        ),
        Image(
            name="test-servers",
            repository="fairlead-test-servers",
            dockerfile=TEST_SERVERS / "Dockerfile",
            parts={
                "site": lambda cache: _inside(packages.site(cache, locked(MODELS_LOCK, without=MODEL_PACKAGES))),
                "servers": _scripts(
                    TEST_SERVERS / "ledger.py",
                    *(EXAMPLE_SERVERS / name for name in ("scripted.py", "handbook.py", "handbook.md")),
                ),
            },
        ),
    )
}
