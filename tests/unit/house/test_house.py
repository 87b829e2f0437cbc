"""The house rules that no linter knows: short files, no forbidden files, every named guarantee has its test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MAX_LINES = 450
MARKER = re.compile(r"requirement\(([^)]*)\)")
ID = re.compile(r"\b[GPAF]\d+\b")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def claimed() -> dict[str, str]:
    return dict(yaml.safe_load((ROOT / "tests/requirements.yaml").read_text(encoding="utf-8")))


def marked() -> set[str]:
    found: set[str] = set()
    for path in tracked("tests/*.py"):
        for arguments in MARKER.findall(path.read_text(encoding="utf-8")):
            found |= set(ID.findall(arguments))
    return found


def test_no_source_file_is_longer_than_a_room() -> None:
    long = {str(path.relative_to(ROOT)): count for path in tracked("*.py") if (count := lines(path)) > MAX_LINES}
    assert long == {}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_package_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator/__init__.py").exists()


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked("operator/*.py")
        if not path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""'))
    ]
    assert silent == []


def test_every_claimed_requirement_has_a_test() -> None:
    assert sorted(set(claimed()) - marked()) == []


def test_every_marked_requirement_is_claimed() -> None:
    assert sorted(marked() - set(claimed())) == []


def test_the_list_of_attacks_has_every_one_that_is_claimed_and_no_other() -> None:
    listed = re.findall(r"\bA\d\d\b", (ROOT / "docs/security.md").read_text(encoding="utf-8"))
    assert set(listed) == {name for name in claimed() if name.startswith("A")}


@pytest.mark.parametrize("wanted", ["A32", "A"])
def test_the_tests_of_a_requirement_are_selected_by_its_id_or_its_letter(wanted: str) -> None:
    names = [line for line in collected(wanted).splitlines() if "::" in line]
    assert names and all("test_nothing_in_the_package_can_run_data" in name for name in names)


def test_a_requirement_that_no_test_has_is_told() -> None:
    assert "no test is marked with the requirement A99" in collected("A99")


def collected(wanted: str) -> str:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", f"--requirement={wanted}", "tests/unit/house"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


@pytest.mark.requirement("A32")
@pytest.mark.parametrize(
    "word",
    [
        *("import pickle", "import marshal", "import shelve", "import dill", "import jinja2", "from jinja2"),
        *("yaml.load(", "yaml.unsafe_load(", "eval(", "exec(", "__import__("),
    ],
)
def test_nothing_in_the_package_can_run_data(word: str) -> None:
    pattern = re.compile(r"(?<![\w.])" + re.escape(word))
    guilty = [
        str(path.relative_to(ROOT))
        for path in tracked("operator/*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert guilty == []


def test_few_ask_the_wall_clock_which_may_jump() -> None:
    asks = re.compile(r"time\.time(_ns)?\(|\b(now|utcnow|today)\((UTC|timezone\.utc)?\)")
    found = {
        str(path.relative_to(ROOT / "operator/fairlead"))
        for path in tracked("operator/*.py")
        if asks.search(path.read_text(encoding="utf-8"))
    }
    shown = {"kube/events.py", "kube/lease.py", "controllers/reconcile.py", "engine/gateway/__init__.py"}
    ages = {"cli/get.py", "cli/submit.py"}
    certificates = {"engine/tls.py"}  # others read them by their own clocks
    assert found - {"engine/clock.py"} == shown | ages | certificates
