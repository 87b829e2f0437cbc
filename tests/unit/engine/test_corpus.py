"""Journals as released versions wrote them mean today what they meant then, and their open runs go on (G1, G6)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.corpus.scenes import LATER, Scene, go_on, summaries

from fairlead.engine.plans import Plans
from fairlead.engine.store import Store
from fairlead.flow.children import bounded
from fairlead.flow.journal import Draft, Entry, EntryKind
from fairlead.flow.next import what_next
from fairlead.flow.plan import Plan
from fairlead.flow.state import apply, new_state

CORPUS = Path(__file__).parents[2] / "corpus"
VERSIONS = sorted(path.stem for path in CORPUS.glob("*.sql"))
PROPOSED = frozenset(
    {
        EntryKind.STEP_STARTED,
        EntryKind.EVALUATED,
        EntryKind.STEP_SUCCEEDED,
        EntryKind.STEP_FAILED,
        EntryKind.STEP_SKIPPED,
        EntryKind.TIMER_SET,
        EntryKind.RUN_SUCCEEDED,
        EntryKind.RUN_FAILED,
    }
)
"""What the core says itself; everything else comes from outside and is only recorded."""


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recorded(version: str) -> dict[str, Any]:
    return dict(json.loads((CORPUS / f"{version}.json").read_text(encoding="utf-8")))


@pytest.fixture
def path(tmp_path: Path, version: str) -> Path:
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as connection:
        connection.executescript((CORPUS / f"{version}.sql").read_text(encoding="utf-8"))
    connection.close()
    return file


def test_the_corpus_holds_every_kind_of_entry_that_a_run_can_have() -> None:
    found = {kind for kind in EntryKind for version in VERSIONS if f"'{kind}'" in _text(version)}
    later = {EntryKind.CALL_RESENT, EntryKind.POD_STARTED}  # than 0.1.0
    assert set(EntryKind) - found <= {EntryKind.CHILD_LOST} | later


@pytest.mark.requirement("G6")
async def test_a_store_of_an_earlier_version_is_read_as_it_was_meant(path: Path, recorded: dict[str, Any]) -> None:
    found = await summaries(path)
    assert json.loads(json.dumps(found)) == recorded


@pytest.mark.requirement("G6")
async def test_the_core_says_after_every_entry_what_it_said_then(path: Path) -> None:
    store = await Store.open(path, clock=lambda: 0)
    scene, plans, replayed = Scene(path), Plans(store), 0
    try:
        for row in await store.runs():
            entries = await store.load(row.uid)
            if entries[0].kind is EntryKind.RUN_REJECTED:
                continue
            accepted = entries[0].data
            plan = bounded(await plans.of(accepted["workflow"], accepted["revision"]), accepted.get("parent"))
            replayed += _replay(plan, scene, entries)
    finally:
        await store.close()
    assert replayed > 200


@pytest.mark.requirement("F05")
@pytest.mark.requirement("G1", "G6")
async def test_the_open_runs_of_an_earlier_version_go_on_and_do_nothing_twice(
    path: Path,
) -> None:
    scene = Scene(path)
    assert await go_on(scene) == dict.fromkeys(LATER, "Completed") | {"sending": "OutcomeUnknown"}
    assert sorted(scene.servers.functions()) == ["last:send"] * 4 + ["slow:read"]


def _replay(plan: Plan, scene: Scene, entries: list[Entry]) -> int:
    """Ask the core before every entry that is its own; return how many of them there were."""
    state, count = new_state(), 0
    proposed: list[Draft] = []
    for entry in entries:
        if entry.kind in PROPOSED:
            count += 1
            proposed = proposed or list(what_next(plan, state, entry.at, scene.resources).records)
            draft = proposed.pop(0)
            assert (draft.kind, draft.path, draft.attempt) == (entry.kind, entry.path, entry.attempt)
            assert _meant(draft.data) == _meant(entry.data)
        else:
            proposed = []
        state = apply(state, entry)
    return count


def _meant(data: Mapping[str, Any]) -> Any:
    """Return an entry's data without the words about an expression without a value: what is recorded keeps its own."""
    meant = json.loads(json.dumps(data))
    if meant.get("error", {}).get("reason") == "ExpressionFailed":
        del meant["error"]["message"]
    return meant


def _text(version: str) -> str:
    return (CORPUS / f"{version}.sql").read_text(encoding="utf-8")
