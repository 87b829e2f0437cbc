"""wait: nothing is done until some time has passed, or a signal has come. It costs no call and, mostly, no process.

What it waits for is journaled as a timer, so that a run that does nothing else can be parked and found again.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from fairlead.api.conditions import timestamp
from fairlead.api.reasons import ErrorClass
from fairlead.api.workflow import AwaitedSignal, Wait
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.schema import findings
from fairlead.flow.steps.attempt import Attempt, Evaluator, Result, Setting, Succeeded, failed

NO_TIME = "until is an RFC 3339 time with its zone, for example 2026-01-31T09:00:00Z, before the year 10000 of UTC"

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def inputs(definition: Wait, evaluator: Evaluator, setting: Setting) -> Any:
    """Return the Unix ms of `until`; None where it does not say when."""
    return unix_ms(evaluator.render(definition.until, "wait.until")) if definition.until is not None else None


def advance(definition: Wait, attempt: Attempt) -> Result | None:
    """Succeed with the first signal that fits; else wait, and when the time is over succeed or fail without it."""
    signal = definition.signal
    taken = attempt.take(signal.name, lambda data: _problems(signal, data)) if signal is not None else None
    if taken is not None:
        return Succeeded({"received": True, "data": taken.data, "by": taken.by})
    if attempt.records:
        return None
    if attempt.state.phase != "Waiting":
        attempt.wait(_ends_ms(definition, attempt), signal=signal.name if signal is not None else "")
        return None
    if attempt.state.wake_at is None or attempt.now_ms < attempt.state.wake_at:
        attempt.wake_at_ms = attempt.state.wake_at
        return None
    if signal is not None and definition.on_timeout != "Continue":
        return failed(ErrorClass.TIMEOUT, f"no signal '{signal.name}' came within {definition.timeout_seconds} s")
    return Succeeded({"received": False, "data": None, "by": None})


def unix_ms(time: Any) -> int:
    """Return the Unix ms of an RFC 3339 time.

    Raises:
        ExpressionError: it is none.
    """
    try:
        if isinstance(time, str) and _RFC_3339.fullmatch(time):
            found = int(datetime.fromisoformat(time.upper()).timestamp() * 1000)
            timestamp(found)  # as it is shown
            return found
    except (ValueError, OverflowError):  # a thirteenth month, the year 0, the year 10000
        pass
    raise ExpressionError(NO_TIME)


def _ends_ms(definition: Wait, attempt: Attempt) -> int | None:
    if definition.until is not None:
        return int(attempt.inputs)
    seconds = definition.seconds or definition.timeout_seconds
    return attempt.now_ms + seconds * 1000 if seconds is not None else None


def _problems(signal: AwaitedSignal, data: Any) -> list[str]:
    return findings(signal.schema_, data) if signal.schema_ is not None else []
