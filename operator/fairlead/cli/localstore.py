"""Where local mode keeps its runs: `.fairlead/NAME.sqlite`, one store per run and its child runs.

A store of its own keeps what a killed run had finished until it is continued, whatever else is run meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairlead.cli.exits import CommandFailed, Exit
from fairlead.engine.clock import SteadyClock

if TYPE_CHECKING:
    from fairlead.engine.store import Store
    from fairlead.engine.store.rows import RunRow
    from fairlead.flow.journal import Entry

NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"


clock_ms = SteadyClock()
"""Unix time in ms, for all that this process does."""


def path_of(folder: Path, name: str) -> Path:
    """Return the store of the run of this name; its folder exists then.

    Raises:
        CommandFailed: the name cannot be a run's.
    """
    if re.fullmatch(NAME, name) is None:
        raise CommandFailed(Exit.USAGE, f"{name} is no name for a run: lower-case letters, digits and dashes")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.sqlite"


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a store into an exit code.

    Raises:
        CommandFailed: another process has the store, or it cannot be opened.
    """
    from fairlead.errors import StoreError, StoreLocked

    try:
        yield
    except StoreLocked as error:
        raise CommandFailed(Exit.UNREACHABLE, f"another process executes the run {path.stem}") from error
    except StoreError as error:
        raise CommandFailed(Exit.UNREACHABLE, f"{path}: {error}") from error


async def find(store: Store, name: str) -> RunRow | None:
    """Return the run of this name, None if it never began."""
    return next((row for row in await store.runs() if row.name == name), None)


async def journal_of(folder: Path, name: str) -> tuple[str, list[Entry]]:
    """Return the UID and the journal of a local run.

    Raises:
        CommandFailed: there is no such run.
    """
    async with _opened(folder, name) as (store, row):
        return row.uid, await store.load(row.uid)


async def audit_of(folder: Path, name: str) -> tuple[dict[str, str], dict[str, list[Any]], list[Any]]:
    """Return the names and the audit records of a local run and its child runs by UID, and the anchors.

    Raises:
        CommandFailed: there is no such run.
    """
    from fairlead.engine.audit import readable

    async with _opened(folder, name) as (store, _):
        rows = await store.runs()
        names: dict[str, str] = {row.uid: row.name for row in rows}
        chains = {str(row.uid): [readable(record) for record in await store.audit_of(row.uid)] for row in rows}
        return names, chains, [readable(anchor) for anchor in await store.anchors()]


@asynccontextmanager
async def _opened(folder: Path, name: str) -> AsyncIterator[tuple[Store, RunRow]]:
    from fairlead.engine.store import Store

    missing = CommandFailed(Exit.NOT_FOUND, f"there is no run {name} in {folder}")
    path = path_of(folder, name)
    if not path.exists():
        raise missing
    with store_errors(path):
        store = await Store.open(path, clock=clock_ms)
    try:
        row = await find(store, name)
        if row is None:
            raise missing
        yield store, row
    finally:
        await store.close()
