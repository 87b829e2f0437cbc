"""The judgement of the crash exam: what is lost, repeated or off the record does not pass."""

from __future__ import annotations

from typing import Any

import pytest
from tests.faults import audited, exam, kitchensink

RUN, UID = kitchensink.run_name(1), "uid-1"
CHILD = {"name": "child-1", "uid": "uid-c"}
EFFECTS = kitchensink.effects_of(RUN)


def function_of(key: str) -> str:
    return "slow" if key.endswith("-right") else "append"


def entry(key: str) -> dict[str, Any]:
    return {"key": key, "function": function_of(key)}


def run_object(reason: str) -> dict[str, Any]:
    succeeded = {"type": "Succeeded", "status": "True" if reason == "Completed" else "False", "reason": reason}
    conditions = [{"type": "Finished", "status": "True"}, succeeded | {"message": ""}]
    return {"metadata": {"name": RUN, "uid": UID}, "spec": {}, "status": {"conditions": conditions}}


def records(*without: str) -> list[dict[str, Any]]:
    """Return the audit of a run and its child, without the outcomes of these keys."""
    found = []
    for key, path in EFFECTS.items():
        where = {"path": path, "attempt": 1, "index": "0.0.0"}
        record = {"run": CHILD["uid"] if path == kitchensink.DO else UID, "where": where}
        what = {"kind": "Tool", "target": "ledger", "function": function_of(key)}
        found.append(record | {"type": "INTENT", "what": what})
        if key not in without:
            found.append(record | {"type": "OUTCOME", "result": {"status": "Succeeded"}})
    return found


class Team:
    """What kubectl says of the namespace."""

    def __init__(self, reason: str) -> None:
        self.objects = [run_object(reason), {"metadata": CHILD, "spec": {"parent": {"name": RUN}}, "status": {}}]

    def get(self, what: str, *_: str) -> dict[str, Any]:
        if what == "statefulset":
            return {"status": {"readyReplicas": 1}}
        return {"items": self.objects if what == exam.RUN else []}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Any:
    def judge(reason: str, effects: list[dict[str, Any]], found: list[dict[str, Any]], *wrong: str) -> exam.Marks:
        marks = exam.Marks(1)
        monkeypatch.setattr(exam, "ledger", lambda team: effects)
        monkeypatch.setattr(audited, "exported", lambda team: found)
        monkeypatch.setattr(audited, "verified", lambda team: list(wrong))
        exam._judge(Team(reason), marks)  # type: ignore[arg-type]  # a cluster that says what it is told
        return marks

    return judge


ALL = [entry(key) for key in EFFECTS]
FIRST, SLOW = f"{RUN}-first", f"{RUN}-right"


def without(key: str) -> list[dict[str, Any]]:
    return [one for one in ALL if one["key"] != key]


def test_all_done_and_recorded_passes(judged: Any) -> None:
    assert judged("Completed", ALL, records()) == exam.Marks(1, completed=1)
    assert judged("Completed", ALL, records()).passed


def test_an_effect_that_a_run_was_told_of_is_lost_however_the_run_ended(judged: Any) -> None:
    for key in EFFECTS:
        marks = judged("OutcomeUnknown", without(key), records())
        assert (marks.unknown, marks.lost, marks.passed) == (1, 1, False), key
    assert judged("Completed", without(FIRST), records()).lost == 1


def test_an_effect_that_nobody_was_told_of_is_not_lost(judged: Any) -> None:
    assert judged("OutcomeUnknown", without(FIRST), records(FIRST)) == exam.Marks(1, unknown=1)


def test_what_verification_finds_is_a_gap(judged: Any) -> None:
    assert judged("Completed", ALL, records(), "uid-1: record 3 was changed").audit_gaps == 1


@pytest.mark.parametrize("key", EFFECTS)
def test_an_effect_without_an_intent_is_a_gap(judged: Any, key: str) -> None:
    found = [record for record in records() if record["where"]["path"] != EFFECTS[key]]
    assert not judged("Completed", ALL, found).passed


def test_more_effects_than_intents_and_those_of_no_run_are_gaps(judged: Any) -> None:
    calls = kitchensink.calls_of(Team("Completed").objects)
    twice = [*ALL, entry(SLOW)]
    assert [*audited.gaps(twice, records(), calls)] == ["2 effects of slow, 1 intents"]
    assert [*audited.gaps([entry("stranger")], records(), calls)] == ["stranger: an effect of no run"]
