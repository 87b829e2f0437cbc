"""When a schedule is due: five cron fields in an IANA time zone, as instants. Pure.

As Debian's cron does it: what falls into an hour that the clock skips is due once, right after it; what falls into an
hour that comes twice is due once, the first time. Schedules with a star in their minute or hour follow elapsed time.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_LOOK_BACK = tuple(timedelta(days=days) for days in (1 / 24, 1, 32, 366))
_SOME_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)


def cron_problem(cron: str) -> str | None:
    """Return what is wrong with cron fields, None when they come up some day."""
    if len(cron.split()) != 5:
        return "five fields are needed: minute, hour, day of month, month, day of week"
    try:
        next(CronSim(cron, _SOME_MONDAY))
    except CronSimError as error:
        return f"{str(error)[:1].lower()}{str(error)[1:]} in '{cron}'"
    except StopIteration:
        return f"'{cron}' never comes"
    return None


def zone_problem(time_zone: str) -> str | None:
    """Return what is wrong with the name of a time zone."""
    return None if _zone(time_zone) is not None else f"there is no time zone '{time_zone}', such as Europe/Paris"


def next_due_ms(cron: str, time_zone: str, *, after_ms: int) -> int | None:
    """Return the Unix ms of the first due time after another; None when the schedule is wrong or never comes."""
    due = next(_due(cron, time_zone, _at(after_ms)), None)
    return _ms(due) if due is not None else None


def last_due_ms(cron: str, time_zone: str, *, after_ms: int, until_ms: int) -> int | None:
    """Return the Unix ms of the last due time after one time and not after another; None when there is none.

    However often a schedule came meanwhile, only some of the times are looked at: from the end backwards, in spans.
    """
    after, until = _at(after_ms), _at(until_ms)
    for start in [*(until - span for span in _LOOK_BACK if until - span > after), after]:
        found = None
        for due in _due(cron, time_zone, start):
            if due > until:
                break
            found = due
        if found is not None:
            return _ms(found)
    return None


def _due(cron: str, time_zone: str, after: datetime) -> Iterator[datetime]:
    """Yield due times after another, in UTC. Asked within an hour that comes twice, the library goes back first."""
    zone = _zone(time_zone)
    if zone is None or cron_problem(cron) is not None:
        return
    for due in CronSim(cron, after.astimezone(zone)):
        instant = due.astimezone(UTC)
        if instant > after:
            yield instant


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _at(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)
