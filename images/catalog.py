"""What each image is made of: a Dockerfile, and the folders that its COPY lines name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from images import packages
from images.cache import Cache
from images.packages import MODELS_LOCK, REPOSITORY, WEIGHT_PACKAGES, locked

RUNTIME_LOCK = REPOSITORY / "locks" / "runtime.txt"
MODEL_PACKAGES = WEIGHT_PACKAGES | {"numpy", "safetensors", "tokenizers", "xllamacpp"}
EXAMPLE_SERVERS = REPOSITORY / "examples" / "servers"
TEST_SERVERS = REPOSITORY / "tests" / "servers"

Folder = Callable[[Cache], list[Path]]
"""Gives the files and folders that lie side by side in a folder of the context; prepares them when they are not."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image, by the name under which it is built and the one under which it is run."""

    name: str
    repository: str
    dockerfile: Path
    dependencies: Mapping[str, Folder]  # copied by the Dockerfile's stage of that name
    code: Mapping[str, Folder]  # copied after it


def _site(lock: Path, *, without: frozenset[str] = frozenset()) -> Folder:
    return lambda cache: _inside(packages.site(cache, locked(lock, without=without)))


def _scripts(*paths: Path) -> Folder:
    return lambda _: list(paths)


def _inside(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


_ALL = (
    Image(
        name="fairlead",
        repository="fairlead",
        dockerfile=REPOSITORY / "Dockerfile",
        dependencies={"site": _site(RUNTIME_LOCK)},
        code={"project": lambda cache: _inside(packages.project(cache))},
    ),
    Image(
        name="examples",
        repository="fairlead-examples",
        dockerfile=EXAMPLE_SERVERS / "Dockerfile",
        dependencies={
            "weights": lambda cache: _inside(packages.weights(cache)),
            "site": _site(MODELS_LOCK, without=WEIGHT_PACKAGES),
        },
        code={"servers": _scripts(*sorted(EXAMPLE_SERVERS.glob("*.py")), EXAMPLE_SERVERS / "handbook.md")},
    ),
    Image(
        name="test-servers",
        repository="fairlead-test-servers",
        dockerfile=TEST_SERVERS / "Dockerfile",
        dependencies={"site": _site(MODELS_LOCK, without=MODEL_PACKAGES)},
        code={
            "servers": _scripts(
                *(TEST_SERVERS / name for name in ("ledger.py", "shifting.py")),
                *(EXAMPLE_SERVERS / name for name in ("scripted.py", "handbook.py", "handbook.md")),
            )
        },
    ),
)
IMAGES = {image.name: image for image in _ALL}
