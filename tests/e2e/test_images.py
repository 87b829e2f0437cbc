"""Our images as they were built: what their Python starts with is compiled, as a read-only root can never write it."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import pytest
from tests.e2e.installation import ROOT, Fairlead

pytestmark = pytest.mark.cluster

STDLIB = ("__future__", "asyncio/__init__", "http/server", "json/decoder", "re/_parser", "socket", "ssl")
_TIMESTAMPED = 0
"""The flags of bytecode that is good for one time of its source; any other kind of ours is not checked at all."""


@pytest.mark.parametrize("name", ["fairlead", "test-servers"])
def test_every_start_finds_bytecode_that_fits(chart: Fairlead, name: str, tmp_path: Path) -> None:
    """Of a timestamp that is not its source's Python takes none: each start would compile the standard library."""
    with tarfile.open(ROOT / f"build/images/{name}.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    sources: dict[str, int] = {}
    compiled: dict[str, tuple[int, int]] = {}
    for layer in tmp_path.glob("*.tar"):
        with tarfile.open(layer) as files:
            for member in files:
                place = member.name.removeprefix("./").replace("__pycache__/", "").replace(".cpython-311.pyc", "")
                if member.name.endswith(".cpython-311.pyc") and (content := files.extractfile(member)) is not None:
                    flags, time = struct.unpack("<4xII", content.read(12))
                    if place not in compiled or flags != _TIMESTAMPED:
                        compiled[place] = flags, time
                elif member.name.endswith(".py"):
                    sources[place.removesuffix(".py")] = int(member.mtime)
    ours = [place for place in sources if place.startswith("opt/") and "/site/" in place]
    library = [place for place in sources if place.partition("lib/python3.11/")[2] in STDLIB]
    assert len(library) == len(STDLIB)
    stale = [
        place
        for place in (*ours, *library)
        if place not in compiled or (compiled[place][0] == _TIMESTAMPED and compiled[place][1] != sources[place])
    ]
    assert ours and stale == []
