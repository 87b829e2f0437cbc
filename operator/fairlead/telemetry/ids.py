"""Trace and span ids that anybody can predict: no lookup, no storage, the same again after a restart."""

from __future__ import annotations

import hashlib
from functools import lru_cache


def trace_id(run_uid: str) -> str:
    """Return the run's trace id: its UID without dashes, 32 hex digits."""
    return run_uid.replace("-", "")


@lru_cache(maxsize=4096)
def span_id(run_uid: str, path: str, attempt: int, kind: str, index: str) -> str:
    """Return 16 hex digits: the first 8 bytes of SHA-256(run uid | path | attempt | kind | index).

    Args:
        run_uid: the WorkflowRun's UID.
        path: the point of the execution; empty for the run itself.
        attempt: from 1; 0 for spans that hold all attempts.
        kind: `run`, `started`, `step`, `attempt`, `call` or `approval`.
        index: the call's index, or the Approval's name; empty for all others.
    """
    return hashlib.sha256(f"{run_uid}|{path}|{attempt}|{kind}|{index}".encode()).hexdigest()[:16]


def traceparent(run_uid: str, path: str, attempt: int, index: str) -> str:
    """Return the W3C header that makes a call's span the parent of what the callee does."""
    return f"00-{trace_id(run_uid)}-{span_id(run_uid, path, attempt, 'call', index)}-01"
