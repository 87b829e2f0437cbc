"""Which transitions of a run's status are worth an Event: accepted, waiting for people, not permitted, ended not well.

Pure: from the status that stood there and the one that was written. Success is no news, its condition says it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import find_condition, is_true
from fairlead.api.meta import Condition
from fairlead.api.reasons import AcceptedReason, RunReason

Status = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class News:
    """What an Event says: a stable reason, a sentence with the trace id, whether a person should look."""

    reason: str
    message: str
    warning: bool = False


def news(before: Status, after: Status) -> Iterator[News]:
    """Yield what is new in `after`.

    Args:
        before: the engine's part of the status as it stood, {} for none.
        after: what was written over it.
    """
    trace = f"trace {after['traceID']}" if "traceID" in after else "no trace"
    was, now = _conditions(before), _conditions(after)
    if is_true(now, "Accepted") and not is_true(was, "Accepted"):
        yield News(AcceptedReason.ACCEPTED.value, f"revision {after['workflow']['revision']}; {trace}")
    denials = after.get("denials", 0) - before.get("denials", 0)
    if denials > 0:
        calls = "1 call was" if denials == 1 else f"{denials} calls were"
        yield News(RunReason.DENIED.value, f"{calls} not permitted, see status.steps; {trace}", warning=True)
    ended, stood = find_condition(now, "Succeeded"), find_condition(was, "Succeeded")
    asks = RunReason.WAITING_FOR_APPROVAL
    if ended is not None and ended.reason == asks and (stood is None or stood.reason != asks):
        yield News(asks.value, f"{after.get('waitingFor', '')}; {trace}")
    if ended is not None and ended.status == "False" and is_true(now, "Finished") and not is_true(was, "Finished"):
        yield News(ended.reason, f"{ended.message}; {trace}", warning=True)


def _conditions(status: Status) -> list[Condition]:
    return [Condition.model_validate(condition) for condition in status.get("conditions", ())]
