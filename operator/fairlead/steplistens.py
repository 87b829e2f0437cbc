"""What a step's pod waits for before the step begins: that something takes its calls to the engine (stepcalls.py).

A probe would ask every second, each time with a process of its own; this is one process, and done at once.
"""

from __future__ import annotations

import socket
import time

PORT = 9911
"""Where the step's calls are taken, on the pod's loopback interface."""

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05


def wait(port: int = PORT) -> None:
    """Return when something listens.

    Raises:
        OSError: nothing did for `PATIENCE_SECONDS`.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(_PAUSE_SECONDS)


if __name__ == "__main__":
    wait()
