"""How long to wait before the next attempt: exponential, capped, with a jitter that a replay finds again."""

from __future__ import annotations

import hashlib

from fairlead.api.workflow import Retry
from fairlead.flow.journal import Path, RunUid


def backoff_ms(retry: Retry, *, tries: int, key: str, retry_after_ms: int = 0) -> int:
    """Return the wait before the next attempt in milliseconds.

    Args:
        retry: what the step says.
        tries: how many attempts have failed, from 1.
        key: what the jitter derives from; see `jitter_key`.
        retry_after_ms: what the other side asked for; the longer wait wins.

    Returns:
        Between half and the whole of `backoffSeconds * factor^(tries-1)`, never more than `maxBackoffSeconds`, unless
        the other side asked for more.
    """
    longest = retry.max_backoff_seconds * 1000
    wait = retry.backoff_seconds * 1000
    for _ in range(tries - 1):
        if wait in (0, longest) or retry.factor == 1:
            break
        wait = min(wait * retry.factor, longest)
    wait = min(wait, longest)
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / 2**32
    return max(int(wait * (0.5 + share / 2)), retry_after_ms)


def jitter_key(run_uid: RunUid, path: Path, attempt: int) -> str:
    """Return the key of one attempt's jitter: steps that fail together do not come back together."""
    return f"{run_uid}|{path}|{attempt}"
