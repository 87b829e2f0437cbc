"""Runs as people read them, and the exit codes that go with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from fairlead.cli import exits, runs
from fairlead.cli.exits import Exit
from fairlead.cli.output import Format, age, duration, plain, show, table

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def run(name: str, created: str, *conditions: tuple[str, str, str, str], **status: Any) -> dict[str, Any]:
    listed = [dict(zip(("type", "status", "reason", "message"), item, strict=True)) for item in conditions]
    return {
        "metadata": {"name": name, "uid": "u", "creationTimestamp": created},
        "spec": {"workflow": "triage"},
        "status": {"conditions": listed, **status},
    }


DENIAL = {"reason": "PolicyDenied", "policy": "bank", "rule": "large"}
DENIED = run(
    "triage-x",
    "2025-12-31T23:50:00Z",
    ("Finished", "True", "Denied", ""),
    ("Succeeded", "False", "Denied", "may not invoke handbook.remove\nkubectl auth can-i invoke ..."),
    progress="1/2",
    traceID="ab12",
    denials=1,
    steps=[{"path": "remove", "phase": "Failed", "attempts": 1, "message": "Forbidden", "denial": DENIAL}],
    usage={"modelCalls": 1, "toolCalls": 0, "inputTokens": 5, "outputTokens": 2},
    output={"text": "bell\u0007"},
)
FRESH = run("triage-y", "2025-12-31T23:59:30Z")


def test_a_list_reads_like_kubectls_newest_last() -> None:
    assert runs.listing([FRESH, DENIED], now_ms=NOW_MS).splitlines() == [
        "NAME       WORKFLOW   FINISHED   SUCCEEDED   REASON   PROGRESS   AGE",
        "triage-x   triage     True       False       Denied   1/2        10m",
        "triage-y   triage     Unknown    Unknown     -        -          30s",
    ]


def test_one_run_shows_its_conditions_steps_usage_and_output() -> None:
    text = runs.description(DENIED, now_ms=NOW_MS, width=80)
    for part in ("Trace      ab12", "Succeeded  False    Denied", "kubectl auth can-i", "✖ remove", "1 model calls"):
        assert part in text
    assert "Denials    1\n  remove: PolicyDenied, bank, large" in text
    assert "\u0007" not in text


@pytest.mark.parametrize(
    ("succeeded", "reason", "code"),
    [(True, "Completed", Exit.OK), (False, "StepFailed", Exit.FAILED), (False, "Denied", Exit.DENIED)],
)
def test_the_exit_code_tells_how_a_run_ended(succeeded: bool, reason: str, code: Exit) -> None:
    assert exits.of_run(succeeded, reason) is code


@pytest.mark.parametrize(
    ("status", "code"), [(0, 3), (401, 4), (403, 4), (404, 5), (409, 1), (422, 1), (429, 3), (503, 3)]
)
def test_what_the_api_server_answers_has_an_exit_code(status: int, code: int) -> None:
    assert exits.of_status(status) == code


def test_every_exit_code_is_documented() -> None:
    assert set(exits.MEANING) == set(Exit)


def test_formats() -> None:
    def shown(form: Format) -> str:
        return show({"a": "ü"}, form, as_table=lambda: "T", name="run/x")

    assert json.loads(shown(Format.JSON)) == yaml.safe_load(shown(Format.YAML)) == {"a": "ü"}
    assert (shown(Format.TABLE), shown(Format.NAME)) == ("T", "run/x")


def test_small_texts() -> None:
    assert [age(s) for s in (-1, 5, 119, 120, 7200, 200_000)] == ["0s", "5s", "119s", "2m", "2h", "2d"]
    assert [duration(ms) for ms in (0, 999, 1500, 125_000, 3_720_000)] == ["0ms", "999ms", "1.5s", "2m05s", "1h02m"]
    assert plain("\x1b[2Ja\nb") == "\ufffd[2Ja\nb"
    assert table(("A", "BB"), [("ccc", "")]).splitlines() == ["A     BB", "ccc   -"]
