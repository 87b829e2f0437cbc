"""How every process of ours in a pod begins and ends: `__main__` of the operator and of the engine call `run`.

The kernel drops a SIGTERM for a container's first process as long as that has no handler, and imports take seconds. A
pod that is deleted while it starts would then sit out its whole grace period. So the handler comes before the imports.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairlead.kube.client import Kube

Serve = Callable[["Kube"], Coroutine[Any, Any, None]]
"""Does the process' work until SIGTERM, for which it has installed a handler of its own."""


def run(component: str, load: Callable[[], Serve]) -> int:
    """Run a process and return its exit code: 0 only after SIGTERM or SIGINT.

    Args:
        component: stands in every line of the log.
        load: imports what the process needs, and returns its work.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    serve = load()
    import uvloop

    return uvloop.run(_bounded(component, serve))


async def _bounded(component: str, serve: Serve) -> int:
    import logging

    from fairlead.kube.client import Kube
    from fairlead.telemetry import logs

    logs.configure(component)
    kube = await Kube.connect()
    try:
        await serve(kube)
    except Exception:
        # The process boundary: whatever it was, the next process starts from what the cluster and the journal say.
        logging.getLogger(f"fairlead.{component}").exception("the %s ends", component)
        return 1
    finally:
        await kube.close()
    return 0


def _end(number: int, frame: object) -> None:
    """Nothing has begun yet that could be left undone."""
    sys.exit(0)
