"""Fixtures of the engine's tests. Those of JOURNALED run twice: on SQLite, and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import World

from fairlead.engine.store import store
from fairlead.engine.store.postgres import Address, Postgres

JOURNALED = frozenset(
    f"test_{name}"
    for name in (
        "approval_race",
        "approvals",
        "audit",
        "audit_gaps",
        "audit_refused",
        "audit_says",
        "budget_left",
        "child_crashes",
        "children",
        "clock_jumps",
        "concurrency",
        "dataflows",
        "driver",
        "endpoints",
        "fan_out",
        "inputs",
        "notices",
        "pausing",
        "poison",
        "presets",
        "recent",
        "reporter",
        "retention",
        "retry",
        "run_faults",
        "runs",
        "schedules",
        "steering",
        "store",
        "windows",
    )
)
"""The modules whose tests open a store."""
ONCE = frozenset(("test_backup", "test_corpus", "test_killed", "test_postgres"))
"""Those of them that look at files of SQLite, or bring PostgreSQL themselves."""

SQLITE, POSTGRES = "sqlite", "postgres"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    journaled = metafunc.module.__name__.rpartition(".")[2] in JOURNALED and "tmp_path" in metafunc.fixturenames
    if journaled and metafunc.definition.get_closest_marker("sqlite") is None:
        metafunc.parametrize("journal", [SQLITE, POSTGRES], indirect=True)


@pytest.fixture(autouse=True)
def journal(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return which database holds the journals of this test: every file that it opens is one there."""
    kind: str = getattr(request, "param", SQLITE)
    with pytest.MonkeyPatch.context() as patch:
        if kind == POSTGRES:
            server: postgres.Server = request.getfixturevalue("postgres_server")

            def backend(path: Path, mountinfo: str = "") -> Postgres:
                return Postgres(Address(lambda: server.empty(str(path)), holder="fairlead-engine-0", namespace="team"))

            patch.setattr(store, "Sqlite", backend)
        yield kind


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "journal.db", workflow(tool_step("a"), tool_step("b", "send")))
