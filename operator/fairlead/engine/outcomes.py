"""Failed outcomes, as both adapters (models/, tools/) write them. Messages hold no content of any answer."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from fairlead.api.reasons import ErrorClass
from fairlead.engine.dialer import Answer
from fairlead.errors import CredentialPending, FairleadError
from fairlead.flow.calls import CallError, Outcome

LONGEST_RETRY_AFTER_MS = 3_600_000


def failed(
    error_class: ErrorClass,
    message: str,
    *,
    reason: str = "",
    started: float | None = None,
    after_ms: int = 0,
) -> Outcome:
    """Return a failed outcome.

    Args:
        error_class: what kind of failure.
        message: for people; no content.
        reason: default: the class.
        started: `time.perf_counter()` at the start of the exchange.
        after_ms: when the callee wants to be asked again.
    """
    duration_ms = int((time.perf_counter() - started) * 1000) if started is not None else 0
    error = CallError(error_class.value, reason or error_class.value, message, after_ms)
    return Outcome(error=error, duration_ms=duration_ms)


def refused(error: FairleadError) -> Outcome:
    """Return the outcome of a call that was stopped on the way out: EgressDenied or a missing credential."""
    error_class = ErrorClass.UNAVAILABLE if isinstance(error, CredentialPending) else ErrorClass.DENIED
    return failed(error_class, str(error), reason=error.reason)


def retry_after_ms(answer: Answer) -> int:
    """Return what `Retry-After` asks for: seconds, or a date compared with the answer's own; 0 if it asks nothing."""
    text = answer.headers.get("Retry-After", "").strip()
    try:
        if text.isdecimal():
            seconds = float(text)
        else:
            now = parsedate_to_datetime(answer.headers["Date"])
            seconds = (parsedate_to_datetime(text) - now).total_seconds()
    except (ValueError, KeyError, TypeError, OverflowError):  # what parsing dates raises for what is none
        return 0
    return int(max(0.0, min(seconds * 1000, LONGEST_RETRY_AFTER_MS)))  # so many digits are infinite
