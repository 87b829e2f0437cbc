"""The one error tree. Every error knows its stable `reason` and whether trying again can help.

FairleadError
├── InvalidSpec            a resource says something that cannot be right; carries the field path
├── StepError              a step or a call ended badly; carries an ErrorClass of api/reasons.py
├── AuthorizerUnavailable  permission could not be decided: wait, never allow
├── EgressDenied           the address or the Secret's allowed-hosts forbid it: nothing was sent
├── CredentialMissing      the Secret or its key does not exist: nothing else is sent instead
├── CredentialPending      the Secret is not mounted into the engine yet: wait
├── StoreError             the journal could not be read or written: no record, no action
│   └── StoreLocked        another process owns the store
├── LeaseLost              another process leads, or may: stop at once
└── KubeError              the API server answered with an error
    ├── NotFound           404
    ├── Conflict           409
    └── Unreachable        no answer at all, or 429 / 5xx
"""

from __future__ import annotations

from fairlead.api.reasons import ErrorClass


class FairleadError(Exception):
    """Root of all errors that Fairlead raises on purpose."""

    reason = "Internal"
    retryable = False


class InvalidSpec(FairleadError):
    """A resource is wrong. `path` is the field path, `message` says what would be right."""

    reason = "InvalidSpec"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


class StepError(FairleadError):
    """A step or call failed with a class, a stable reason (default: the class) and a message without content."""

    def __init__(self, error_class: ErrorClass, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.message = message
        self.reason = reason or error_class.value
        self.retryable = error_class in (ErrorClass.TIMEOUT, ErrorClass.UNAVAILABLE, ErrorClass.RATE_LIMITED)


class AuthorizerUnavailable(FairleadError):
    """The authorizer gave no answer. Unavailable is not denied and never allowed."""

    reason = "AuthorizerUnavailable"
    retryable = True


class EgressDenied(FairleadError):
    """The request may not go there. Raised before anything is sent."""

    reason = "EgressDenied"


class CredentialMissing(FairleadError):
    """The Secret or its key does not exist."""

    reason = "CredentialMissing"


class CredentialPending(FairleadError):
    """The Secret is named, but not mounted into the engine yet."""

    reason = "CredentialPending"
    retryable = True


class StoreError(FairleadError):
    """The journal could not be read or written."""

    reason = "StoreUnavailable"
    retryable = True


class StoreLocked(StoreError):
    """Another process holds the store; two engines never make progress on one run."""

    reason = "StoreLocked"
    retryable = False


class LeaseLost(FairleadError):
    """This process does not lead any more, or cannot know that it does."""

    reason = "LeaseLost"


class KubeError(FairleadError):
    """The API server answered with an error status."""

    reason = "KubeError"

    def __init__(self, status: int, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class NotFound(KubeError):
    """404."""

    reason = "NotFound"


class Conflict(KubeError):
    """409: read again."""

    reason = "Conflict"
    retryable = True


class Unreachable(KubeError):
    """No answer, 429 or 5xx: try again later."""

    reason = "Unreachable"
    retryable = True
