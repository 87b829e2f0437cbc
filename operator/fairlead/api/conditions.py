"""Conditions as pure data, and the form of their times. The transition time changes only with the status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from fairlead.api.meta import Condition


def timestamp(unix_ms: int) -> str:
    """Return RFC 3339 in seconds, UTC."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def set_condition(
    conditions: Iterable[Condition],
    type_: str,
    status: bool | None,
    *,
    reason: str,
    message: str = "",
    now: str,
    observed_generation: int | None = None,
) -> list[Condition]:
    """Return `conditions` with one set, sorted by type.

    Args:
        conditions: the conditions so far.
        type_: the condition's type, for example `Ready`.
        status: True, False, or None for Unknown.
        reason: a stable reason of `api/reasons.py`.
        message: for people; cut at 32768 characters.
        now: RFC 3339 time, used only when the status changes.
        observed_generation: the `metadata.generation` that was looked at.
    """
    by_type = {c.type: c for c in conditions}
    word = {True: "True", False: "False", None: "Unknown"}[status]
    before = by_type.get(type_)
    since = before.last_transition_time if before is not None and before.status == word else now
    by_type[type_] = Condition.model_validate(
        {
            "type": type_,
            "status": word,
            "reason": reason,
            "message": message[:32768],
            "lastTransitionTime": since,
            "observedGeneration": observed_generation,
        }
    )
    return [by_type[key] for key in sorted(by_type)]


def only_condition(
    status: Mapping[str, Any],
    type_: str,
    value: bool | None,
    *,
    reason: str,
    message: str,
    now: str,
    observed_generation: int,
) -> list[dict[str, Any]]:
    """Return `conditions` as they are sent by who owns this one condition of an object and no other.

    Args:
        status: the object's status as it stands; the transition time is kept from it.
        type_: the condition's type.
        value: True, False, or None for Unknown.
        reason: a stable reason of `api/reasons.py`.
        message: for people.
        now: RFC 3339.
        observed_generation: the `metadata.generation` that was looked at.
    """
    before = [Condition.model_validate(c) for c in status.get("conditions", ()) if c["type"] == type_]
    after = set_condition(
        before, type_, value, reason=reason, message=message, now=now, observed_generation=observed_generation
    )
    return [condition.model_dump(by_alias=True, exclude_none=True) for condition in after]


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """Return the condition of this type, if there is one."""
    return next((c for c in conditions if c.type == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Tell whether the condition exists and is True."""
    found = find_condition(conditions, type_)
    return found is not None and found.status == "True"
