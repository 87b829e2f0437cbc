"""Fixtures of the engine's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.engine.fakes import tool_step, workflow
from tests.unit.engine.runworld import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "journal.db", workflow(tool_step("a"), tool_step("b", "send")))
