from __future__ import annotations

from fairlead.api.conditions import find_condition, is_true, set_condition
from fairlead.api.meta import Condition

NOW, LATER = "2001-01-01T00:00:00Z", "2001-01-01T00:00:01Z"


def ready(before: list[Condition], status: bool | None, *, now: str, reason: str = "Ready") -> list[Condition]:
    return set_condition(before, "Ready", status, reason=reason, message="m", now=now, observed_generation=3)


def test_the_time_changes_only_with_the_status() -> None:
    first = ready([], False, now=NOW, reason="InvalidSpec")
    same = ready(first, False, now=LATER, reason="UnknownReference")
    assert (same[0].last_transition_time, same[0].reason) == (NOW, "UnknownReference")
    assert ready(same, True, now=LATER)[0].last_transition_time == LATER


def test_other_conditions_stay_and_the_order_is_that_of_their_types() -> None:
    conditions = ready(set_condition([], "Stalled", False, reason="Ready", now=NOW), None, now=NOW)
    conditions = set_condition(conditions, "Authorized", True, reason="Granted", now=NOW)
    assert [(c.type, c.status) for c in conditions] == [
        ("Authorized", "True"),
        ("Ready", "Unknown"),
        ("Stalled", "False"),
    ]
    assert is_true(conditions, "Authorized")
    assert not is_true(conditions, "Ready")
    assert not is_true(conditions, "Absent")
    assert find_condition(conditions, "Absent") is None


def test_a_long_message_is_cut_where_the_api_server_would_refuse_it() -> None:
    (condition,) = set_condition([], "Ready", False, reason="InvalidSpec", message="x" * 40000, now=NOW)
    assert len(condition.message) == 32768
