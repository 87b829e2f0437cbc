"""What runs before a server in its pod: it waits until the network has locked the pod in.

A NetworkPolicy may bind a pod only some time after the pod has an address; what starts at once would find the way out
open. So the pod's first container tries the way that every pod of a cluster has, the one to the API server, and ends
when it is closed. Where it never closes the server never starts: nothing here enforces NetworkPolicies.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0
"""How long the way out may be open before this container fails; the kubelet starts it again, ever more seldom."""
ENOUGH = 3
"""Attempts in a row that have to fail: one may be lost for another reason."""
_PAUSE_SECONDS = 0.2
_TIMEOUT_SECONDS = 1.0


def closes(reaches: Callable[[], bool], *, clock: Callable[[], float], sleep: Callable[[float], None]) -> bool:
    """Return whether the way out was closed within `PATIENCE_SECONDS`.

    Args:
        reaches: tries the way out once.
        clock: monotonic seconds.
        sleep: waits for some seconds.
    """
    deadline = clock() + PATIENCE_SECONDS
    failed = 0
    while failed < ENOUGH:
        failed = 0 if reaches() else failed + 1
        if failed == 0 and clock() >= deadline:
            return False
        sleep(_PAUSE_SECONDS)
    return True


def reaches(host: str, port: int) -> bool:
    """Return whether a TCP connection can be made."""
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Return 0 when the pod is isolated, 1 when it is not."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
    if closes(lambda: reaches(host, port), clock=time.monotonic, sleep=time.sleep):
        return 0
    print(
        f"the pod could reach the API server ({host}:{port}) for {PATIENCE_SECONDS:g} s: this cluster's network does "
        "not enforce NetworkPolicies, or another NetworkPolicy lets the pod out; mend that, or set "
        "spec.security.requireNetworkIsolation of the Engine to NotRequired",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
