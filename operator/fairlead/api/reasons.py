"""Every stable reason that a user can meet: conditions, decisions, stages and error classes.

Reasons are API: they are documented from here, matched by alerts and never renamed.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ErrorClass(StrEnum):
    """What kind of failure a step or call met; `retry.errorClasses` and `onError` speak of these."""

    TIMEOUT = "Timeout"
    UNAVAILABLE = "Unavailable"
    RATE_LIMITED = "RateLimited"
    INVALID = "Invalid"
    DENIED = "Denied"
    BUDGET_EXCEEDED = "BudgetExceeded"
    TOOL_ERROR = "ToolError"
    MODEL_ERROR = "ModelError"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    CANCELLED = "Cancelled"
    INTERNAL = "Internal"


RETRIED_BY_DEFAULT = (ErrorClass.TIMEOUT, ErrorClass.UNAVAILABLE, ErrorClass.RATE_LIMITED)
NEVER_RETRIED = (ErrorClass.DENIED, ErrorClass.INVALID, ErrorClass.OUTCOME_UNKNOWN, ErrorClass.CANCELLED)


class Stage(IntEnum):
    """The stages of one call's decision. The order is part of the contract."""

    AUTHENTICATE = 0
    FENCE = 1
    PARSE = 2
    REPLAY = 3
    CONTRACT = 4
    RBAC = 5
    RULES = 6
    DATA_FLOW = 7
    LIMITS = 8
    BUDGET = 9
    APPROVAL = 10
    INTENT = 11
    DISPATCH = 12
    OUTCOME = 13


class DecisionReason(StrEnum):
    """Why a call was allowed, denied or has to wait. A deny has exactly one."""

    ALLOWED = "Allowed"
    UNAUTHENTICATED = "Unauthenticated"
    STALE_ATTEMPT = "StaleAttempt"
    RUN_NOT_ACTIVE = "RunNotActive"
    MALFORMED = "Malformed"
    NONDETERMINISM = "Nondeterminism"
    INVALID = "Invalid"
    TOOL_DRIFT = "ToolDrift"  # the server's definition of the function is not the pinned one
    DEFINITION_UNKNOWN = (
        "DefinitionUnknown"  # of a pinned function: the server does not list what it has; the call waits
    )
    POLICIES_UNKNOWN = "PoliciesUnknown"  # the operator has not said which ClusterPolicies bind; the call waits
    FORBIDDEN = "Forbidden"
    AUTHORIZER_UNAVAILABLE = "AuthorizerUnavailable"
    POLICY_DENIED = "PolicyDenied"
    FLOW_DENIED = "FlowDenied"
    LOOP_DETECTED = "LoopDetected"
    RATE_LIMITED = "RateLimited"
    BUDGET_EXCEEDED = "BudgetExceeded"
    APPROVAL_PENDING = "ApprovalPending"
    APPROVAL_DENIED = "ApprovalDenied"
    APPROVAL_EXPIRED = "ApprovalExpired"
    REQUESTER_UNKNOWN = "RequesterUnknown"  # somebody else must approve, and nobody knows who requested the run
    AUDIT_UNAVAILABLE = "AuditUnavailable"
    EGRESS_DENIED = "EgressDenied"  # the dialer or the Secret's allowed-hosts refused the address
    CREDENTIAL_MISSING = "CredentialMissing"  # the Secret or its key does not exist
    CREDENTIAL_PENDING = "CredentialPending"  # not mounted into the engine yet: the call waits
    NOT_ISOLATED = "NotIsolated"  # the network does not lock our pods in; the Engine's NetworkIsolation says why
    DECISION_FAILED = "DecisionFailed"  # the decision itself broke: without one nothing is allowed


class ReadyReason(StrEnum):
    """Reasons of `Ready` and `Stalled` on declared kinds."""

    READY = "Ready"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_REFERENCE = "UnknownReference"
    ENGINE_NOT_READY = "EngineNotReady"
    SERVER_NOT_READY = "ServerNotReady"  # the pod that the operator runs for a Tool or Model is not ready yet
    ACCOUNT_CONFLICT = "AccountConflict"  # a granted account exists and is not ours to use
    RESERVED_ACCOUNT = "ReservedAccount"  # fairlead-*, default: never granted anything
    PROGRESSING = "Progressing"
    NAME_NOT_ALLOWED = "NameNotAllowed"  # an Engine that is not called `default`
    RECONCILE_FAILED = "ReconcileFailed"  # the API server refused something; the message has its words


class AuthorizedReason(StrEnum):
    """Reasons of a Workflow's `Authorized`."""

    GRANTED = "Granted"
    MISSING_GRANTS = "MissingGrants"
    AUTHORIZER_UNAVAILABLE = "AuthorizerUnavailable"


class ReachableReason(StrEnum):
    """Reasons of a Tool's or Model's `Reachable`."""

    ANSWERED = "Answered"
    NO_ANSWER = "NoAnswer"
    CREDENTIAL_PENDING = "CredentialPending"
    CREDENTIAL_MISSING = "CredentialMissing"
    EGRESS_DENIED = "EgressDenied"


class PinnedReason(StrEnum):
    """Reasons of a Tool's `Pinned`."""

    PINNED = "Pinned"
    DRIFT = "Drift"  # the message names the functions that the server defines otherwise, or not any more
    UNPINNED = "Unpinned"  # the message names the functions without a pin
    DEFINITION_UNKNOWN = "DefinitionUnknown"


class AcceptedReason(StrEnum):
    """Reasons of a run's `Accepted`."""

    ACCEPTED = "Accepted"
    WORKFLOW_NOT_READY = "WorkflowNotReady"
    WORKFLOW_NOT_FOUND = "WorkflowNotFound"
    NOT_AUTHORIZED = "NotAuthorized"
    INPUT_NOT_FOUND = "InputNotFound"
    REJECTED = "Rejected"


class RunReason(StrEnum):
    """Reasons of a run's `Succeeded`: the first group while it is open, the second once it is closed."""

    QUEUED = "Queued"
    EXECUTING = "Executing"
    WAITING_FOR_SIGNAL = "WaitingForSignal"
    WAITING_FOR_APPROVAL = "WaitingForApproval"
    SLEEPING = "Sleeping"  # a wait for some time or until a time
    BACKING_OFF = "BackingOff"
    WAITING_FOR_CHILD = "WaitingForChild"
    PAUSED = "Paused"
    CLOSING = "Closing"

    COMPLETED = "Completed"
    STEP_FAILED = "StepFailed"
    TIMEOUT = "Timeout"
    CANCELLED = "Cancelled"
    DENIED = "Denied"
    BUDGET_EXCEEDED = "BudgetExceeded"
    LOOP_DETECTED = "LoopDetected"
    INVALID_INPUT = "InvalidInput"
    INVALID_WORKFLOW = "InvalidWorkflow"
    WORKFLOW_NOT_FOUND = "WorkflowNotFound"
    OUTCOME_UNKNOWN = "OutcomeUnknown"
    CHILD_NAME_CONFLICT = "ChildNameConflict"  # a run that is not the child has the child's name
    REJECTED = "Rejected"  # as many runs are at work as the Workflow allows, and it says Reject
    STATE_LOST = "StateLost"
    NONDETERMINISM = "Nondeterminism"


class DecidedReason(StrEnum):
    """Reasons of an Approval's `Decided`; with Approved alone its run goes on as if nobody had to be asked."""

    PENDING = "Pending"
    GUARDRAILS_MISSING = "GuardrailsMissing"  # a forged decision would not be refused: an approval denies
    APPROVED = "Approved"
    DENIED = "Denied"
    EXPIRED = "Expired"
    WITHDRAWN = "Withdrawn"  # the run does not wait for it any more


class AuditedReason(StrEnum):
    """Why `Audited` is what it is."""

    RECORDING = "Recording"
    RECORDED = "Recorded"


class DataFlowReason(StrEnum):
    """Reasons of a Workflow's `DataFlowSafe`."""

    NOTHING_LEAKS = "NothingLeaks"  # whatever its steps answer
    UNTRUSTED_TO_EXTERNAL = "UntrustedToExternal"  # the message names the step, and from where the data come


class EnforcedReason(StrEnum):
    """Reasons of a Policy's `Enforced`."""

    ENFORCED = "Enforced"
    AUDITED = "Audited"  # recorded, and allowed
    NO_RULES = "NoRules"  # it only grants
    INVALID_RULES = "InvalidRules"  # a rule that cannot be right denies what it is held against
    NOT_UNDERSTOOD = "NotUnderstood"  # by this version: it denies every call that it binds


class GuardrailsReason(StrEnum):
    """Reasons of an Engine's `GuardrailsInstalled`."""

    VERIFIED = "Verified"
    NOT_INSTALLED = "NotInstalled"  # forged decisions are not refused: no approval counts


class NetworkReason(StrEnum):
    """Reasons of an Engine's `NetworkIsolation`."""

    VERIFIED = "Verified"  # a pod of ours found its way out closed before it started
    NOT_ENFORCED = "NotEnforced"  # one found it open
    WIDENED_BY_POLICY = "WidenedByPolicy"  # somebody else's NetworkPolicy selects our pods too
    UNTRIED = "Untried"


class TriggersReason(StrEnum):
    """Reasons of a Workflow's `TriggersReady`; it is there where HTTP triggers have keys."""

    READY = "Ready"
    KEY_PENDING = "KeyPending"  # not mounted into the engine yet
    KEY_UNUSABLE = "KeyUnusable"  # the Secret is for something else, or lacks the key: nobody is let in


class TracedReason(StrEnum):
    """Reasons of a run's `Traced`."""

    EXPORTED = "Exported"
    EXPORTING = "Exporting"  # spans are on their way
    EXPORTER_UNREACHABLE = "ExporterUnreachable"
    DISABLED = "Disabled"
