"""Record the corpus of this version: `python -m tests.corpus`."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tests.corpus.scenes import Scene, record, summaries

HERE = Path(__file__).parent


def main() -> int:
    """Write both files. 1 if this version has them already: what a version wrote is not written again."""
    files = [HERE / f"{version('fairlead')}.{ending}" for ending in ("sql", "json")]
    if any(file.exists() for file in files):
        print(f"{files[0]} is here already")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder) / "journal.db")
        asyncio.run(record(scene))
        found = asyncio.run(summaries(scene.path))
        files[1].write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        with sqlite3.connect(scene.path) as connection:
            files[0].write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
