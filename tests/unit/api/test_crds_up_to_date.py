from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.api.crds import main, render

COMMITTED = Path(__file__).resolve().parents[3] / "crds"


def test_the_committed_crds_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in COMMITTED.iterdir()}
    assert committed == render(), "run `python -m fairlead.api.crds crds`"


def test_writing_removes_what_no_longer_exists_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "fairlead.dev_gone.yaml").write_text("")
    (tmp_path / "other.yaml").write_text("")
    assert main([str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*render(), "other.yaml"}


def test_without_a_directory_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
