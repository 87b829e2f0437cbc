"""Where local mode keeps its runs: `.fairlead/NAME.sqlite`, one store per run.

A store of its own keeps what a killed run had finished until it is continued, whatever else is run meanwhile.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from fairlead.engine.store import Store
    from fairlead.engine.store.database import RunRow
    from fairlead.flow.journal import Entry

NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


def clock_ms() -> int:
    """Return Unix time in ms."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def opened(folder: Path, name: str) -> AsyncIterator[Store]:
    """Open, or make, the store of the run of this name.

    Raises:
        CommandFailed: the name cannot be a run's, or another process holds the store.
    """
    from fairlead.engine.store import Store
    from fairlead.errors import StoreError, StoreLocked

    if re.fullmatch(NAME, name) is None:
        raise CommandFailed(Exit.USAGE, f"{name} is no name for a run: lower-case letters, digits and dashes")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        store = await Store.open(folder / f"{name}.sqlite", clock=clock_ms)
    except StoreLocked as error:
        raise CommandFailed(Exit.UNREACHABLE, f"the run {name} is being executed by another process") from error
    except StoreError as error:
        raise CommandFailed(Exit.UNREACHABLE, str(error)) from error
    try:
        yield store
    finally:
        await store.close()


async def find(store: Store) -> RunRow | None:
    """Return the run of this store, None if it never began."""
    return next(iter(await store.runs()), None)


async def journal_of(folder: Path, name: str) -> tuple[str, list[Entry]]:
    """Return the UID and the journal of a local run.

    Raises:
        CommandFailed: there is no such run.
    """
    missing = CommandFailed(Exit.NOT_FOUND, f"there is no run {name} in {folder}")
    if not (folder / f"{name}.sqlite").exists():
        raise missing
    async with opened(folder, name) as store:
        row = await find(store)
        if row is None:
            raise missing
        return row.uid, await store.load(row.uid)
