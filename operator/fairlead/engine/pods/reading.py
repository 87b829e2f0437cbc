"""What a step pod's status says: does it go on, did it end well, and if not, why. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairlead.api.reasons import ErrorClass
from fairlead.engine.pods.build import STEP
from fairlead.flow.calls import CallError

LOST_SECONDS = 10
"""How long after it should have ended a pod may still be there: its node may be late, or does not answer any more."""

_NEVER = frozenset(("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"))
"""What does not pass: such a pod can never begin."""

_NODE_BEGINS = "have not yet been read"
"""So a kubelet says that has just begun, and makes containers a little later."""

_PULLING = frozenset(("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"))
_AGAIN = frozenset(("CrashLoopBackOff", "PostStartHookError"))
"""A sidecar was killed, or did not begin in time, and is started again."""

_STARTING = frozenset(("", "ContainerCreating", "PodInitializing"))

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Waits:
    """Why something has not begun that still may.

    Attributes:
        state: of what, and what kind of thing is in its way: the same as long as that is the same.
        error: what its step fails with when it lasts too long.
    """

    state: tuple[str, str]
    error: CallError


def succeeded(pod: Pod) -> bool:
    """Tell whether the step's container ended with 0."""
    ended = _state(pod, STEP).get("terminated")
    return ended is not None and ended.get("exitCode") == 0


def ended(pod: Pod) -> bool:
    """Tell whether nothing of the pod runs any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def lost(pod: Pod, now: datetime) -> bool:
    """Tell whether a pod that was deleted has not ended in its time: nobody hears of its node, nor waits for it."""
    ends = pod["metadata"].get("deletionTimestamp")  # with the time that it has to end
    return bool(ends) and not ended(pod) and _since(ends, now) >= LOST_SECONDS


def failure(pod: Pod, now: datetime) -> CallError | None:
    """Return why the step fails; None while it goes on, or when it ended well."""
    status = pod.get("status", {})
    if status.get("reason") == "DeadlineExceeded":
        return _error(ErrorClass.TIMEOUT, "Timeout", "the pod ran until its deadline")
    if status.get("reason") in ("Evicted", "NodeLost", "NodeShutdown", "Preempting"):
        return _error(
            ErrorClass.UNAVAILABLE, status["reason"], status.get("message", "the pod was taken from its node")
        )
    if lost(pod, now):
        message = "the pod was deleted, and its node does not say that it has ended"
        return _disruption(pod) or _error(ErrorClass.UNAVAILABLE, "NodeLost", message)
    at_the_end = _exit(pod)
    if at_the_end is not None:
        return at_the_end
    if ended(pod) and not succeeded(pod):
        message = status.get("message") or "the pod ended before its step did"
        return _taken(pod) or _error(ErrorClass.UNAVAILABLE, "PodFailed", message)
    return _never(pod)


def waits(pod: Pod) -> Waits | None:
    """Return what is in the way of a pod's begin and may pass; None of one that goes on, or cannot begin."""
    if "running" in _state(pod, STEP):
        return None
    for condition in pod.get("status", {}).get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason, message = condition.get("reason", "Unschedulable"), condition.get("message", "")
            return Waits(("", "Unschedulable"), _error(ErrorClass.UNAVAILABLE, reason, message[:1000]))
    for name, reason, message in _waiting(pod):
        if reason in _STARTING or _is_final(reason, message):
            continue
        kind = "pulls" if reason in _PULLING else "again" if reason in _AGAIN else reason
        passes = kind != reason or reason == "CreateContainerConfigError"
        return Waits((name, kind), _error(ErrorClass.UNAVAILABLE if passes else ErrorClass.INVALID, reason, message))
    return None


def _never(pod: Pod) -> CallError | None:
    found = [(reason, message) for _, reason, message in _waiting(pod) if _is_final(reason, message)]
    return _error(ErrorClass.INVALID, *found[0]) if found else None


def _is_final(reason: str, message: str) -> bool:
    return reason in _NEVER and _NODE_BEGINS not in message


def _waiting(pod: Pod) -> list[tuple[str, str, str]]:
    """Return which containers wait, why, and what is said of it."""
    found = [(name, state.get("waiting") or {}) for name, state in _states(pod).items()]
    return [(name, one.get("reason", ""), one.get("message", "")[:1000]) for name, one in found]


def _taken(pod: Pod) -> CallError | None:
    """Return why a step had to end before it was done; None when nobody had it end."""
    deleted = "deletionTimestamp" in pod["metadata"]
    return _disruption(pod) or (_error(ErrorClass.UNAVAILABLE, "PodLost", "the pod was deleted") if deleted else None)


def _disruption(pod: Pod) -> CallError | None:
    for one in pod.get("status", {}).get("conditions", []):
        if one.get("type") == "DisruptionTarget" and one.get("status") == "True":
            message = one.get("message") or "the pod was taken from its node"
            return _error(ErrorClass.UNAVAILABLE, one.get("reason") or "Evicted", message)
    return None


def _exit(pod: Pod) -> CallError | None:
    for name, state in _states(pod).items():
        done = state.get("terminated")
        if done is None or done.get("exitCode", 0) == 0 or (name != STEP and not _init_failed(pod, name)):
            continue
        if done.get("reason") == "OOMKilled":
            return _error(ErrorClass.TOOL_ERROR, "OOMKilled", "the container used more than its resources.memory")
        if name == STEP:
            message = f"the container ended with {done.get('exitCode')}"
            return _taken(pod) or _error(ErrorClass.TOOL_ERROR, "ExitCode", message)
        return _error(ErrorClass.UNAVAILABLE, "NotIsolated", done.get("message", "")[:1000] or f"{name} failed")
    return None


def _init_failed(pod: Pod, name: str) -> bool:
    """The helper that waits beside the step ends after it, however; the one before it lets it begin or does not."""
    return name == "input"


def _states(pod: Pod) -> dict[str, Mapping[str, Any]]:
    status = pod.get("status", {})
    found = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {one["name"]: one.get("state", {}) for one in found}


def _state(pod: Pod, name: str) -> Mapping[str, Any]:
    return _states(pod).get(name, {})


def _since(at: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(at)).total_seconds()


def _error(error_class: ErrorClass, reason: str, message: str) -> CallError:
    return CallError(error_class.value, reason, message)
