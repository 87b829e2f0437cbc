"""When schedules are due: over the days on which clocks change, after outages, and never twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.flow.cron import cron_problem, last_due_ms, next_due_ms, zone_problem


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def due_times(cron: str, zone: str, *, after: str, until: str) -> list[str]:
    """The due times in UTC, as `02T01:30`."""
    found, at_ms = [], ms(after)
    while (due := next_due_ms(cron, zone, after_ms=at_ms)) is not None and due <= ms(until):
        found.append(datetime.fromtimestamp(due / 1000, UTC).strftime("%dT%H:%M"))
        at_ms = due
    return found


# On 29 March 2026 Paris skips 02:00-03:00 (at 01:00 UTC); on 25 October 02:00-03:00 comes twice (again at 01:00 UTC).
DAYS = {
    "a quiet night": ("0 2 * * *", "Europe/Paris", "2026-01-01", "2026-01-03", ["01T01:00", "02T01:00"]),
    "UTC has no summer": ("30 2 * * *", "Etc/UTC", "2026-03-28T12:00", "2026-03-30T12:00", ["29T02:30", "30T02:30"]),
    "a skipped time is due once, right after": (
        "30 2 * * *",
        "Europe/Paris",
        "2026-03-28T00:00",
        "2026-03-31T00:00",
        ["28T01:30", "29T01:00", "30T00:30"],
    ),
    "several skipped times are due once": (
        "15,45 2 * * *",
        "Europe/Paris",
        "2026-03-28T12:00",
        "2026-03-30T00:20",
        ["29T01:00", "30T00:15"],
    ),
    "a doubled time is due once, the first time": (
        "30 2 * * *",
        "Europe/Paris",
        "2026-10-24T12:00",
        "2026-10-26T12:00",
        ["25T00:30", "26T01:30"],
    ),
    "a doubled time is over when the second one comes": (
        "30 2 * * *",
        "Europe/Paris",
        "2026-10-25T01:10",
        "2026-10-26T12:00",
        ["26T01:30"],
    ),
    "every hour goes on through a skipped hour": (
        "0 * * * *",
        "Europe/Paris",
        "2026-03-28T23:30",
        "2026-03-29T02:30",
        ["29T00:00", "29T01:00", "29T02:00"],
    ),
    "every hour goes on through a doubled hour": (
        "0 * * * *",
        "Europe/Paris",
        "2026-10-24T23:30",
        "2026-10-25T02:30",
        ["25T00:00", "25T01:00", "25T02:00"],
    ),
    "half an hour is skipped elsewhere": (
        "15 2 * * *",
        "Australia/Lord_Howe",
        "2026-10-03T00:00",
        "2026-10-04T23:00",
        ["03T15:30", "04T15:15"],
    ),
    "leap days": ("0 0 29 2 *", "Etc/UTC", "2026-01-01", "2028-03-01", ["29T00:00"]),
    "names and ranges": ("0 9-10 * * MON-TUE", "Etc/UTC", "2026-01-04", "2026-01-05T23:00", ["05T09:00", "05T10:00"]),
}


@pytest.mark.parametrize(("cron", "zone", "after", "until", "expected"), DAYS.values(), ids=DAYS.keys())
def test_when_a_schedule_is_due(cron: str, zone: str, after: str, until: str, expected: list[str]) -> None:
    assert due_times(cron, zone, after=after, until=until) == expected


crons = st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0,45 1-3 * * *", "0 0 1 * *", "5 4 * * SUN"])
zones = st.sampled_from(["Etc/UTC", "Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"])
instants = st.integers(ms("2026-03-01"), ms("2026-11-30"))


@given(crons, zones, instants)
def test_due_times_only_go_forward_and_never_come_twice(cron: str, zone: str, after_ms: int) -> None:
    found = [after_ms]
    for _ in range(5):
        due = next_due_ms(cron, zone, after_ms=found[-1])
        assert due is not None
        found.append(due)
    assert all(before < later for before, later in pairwise(found))


@given(crons, zones, instants, st.integers(0, 3 * 86_400_000))
def test_the_last_due_time_is_the_last_of_all(cron: str, zone: str, after_ms: int, outage_ms: int) -> None:
    until_ms = after_ms + outage_ms
    last = last_due_ms(cron, zone, after_ms=after_ms, until_ms=until_ms)
    if last is None:
        upcoming = next_due_ms(cron, zone, after_ms=after_ms)
        assert upcoming is not None and upcoming > until_ms
    else:
        following = next_due_ms(cron, zone, after_ms=last)
        assert after_ms < last <= until_ms and following is not None and following > until_ms


def test_after_years_of_outage_the_last_time_is_found_at_once() -> None:
    now_ms, long_ago_ms = ms("2026-07-01T00:00"), ms("2016-07-01T00:00")
    last = {
        cron: last_due_ms(cron, "Etc/UTC", after_ms=long_ago_ms, until_ms=now_ms) for cron in ("* * * * *", "0 0 1 1 *")
    }
    assert last == {"* * * * *": now_ms, "0 0 1 1 *": ms("2026-01-01")}
    assert last_due_ms("0 0 29 2 *", "Etc/UTC", after_ms=long_ago_ms, until_ms=now_ms) == ms("2024-02-29")


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("* * * *", "five fields are needed"),
        ("* * * * * *", "five fields are needed"),
        ("@daily", "five fields are needed"),
        ("60 * * * *", "bad minute in '60 * * * *'"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * * MOON", "bad day-of-week"),
    ],
)
def test_what_is_no_cron_is_said(cron: str, words: str) -> None:
    assert words in (cron_problem(cron) or "")
    assert next_due_ms(cron, "Etc/UTC", after_ms=0) is None


@pytest.mark.parametrize("zone", ["Local", "Mars/Base", "../etc/passwd", "", "/usr/share/zoneinfo/UTC", "Europe"])
def test_what_is_no_time_zone_is_said(zone: str) -> None:
    assert "there is no time zone" in (zone_problem(zone) or "")
    assert next_due_ms("0 0 * * *", zone, after_ms=0) is None


@given(st.text(max_size=30))
def test_no_text_breaks_the_checks(text: str) -> None:
    cron_problem(text)
    zone_problem(text)


def test_a_schedule_is_not_due_at_the_time_it_is_asked_from() -> None:
    at_ms = ms("2026-01-01T02:00")
    due = next_due_ms("0 2 * * *", "Etc/UTC", after_ms=at_ms)
    assert due == at_ms + int(timedelta(days=1).total_seconds()) * 1000
