"""`python3 -m fairlead.engine`: the engine's process."""

from __future__ import annotations

import logging
import os
import sys

import uvloop

from fairlead.engine.app import App, Settings
from fairlead.kube.client import Kube
from fairlead.telemetry import logs


async def main() -> int:
    """Run the engine; the exit code is 0 only after SIGTERM or SIGINT."""
    logs.configure("engine")
    settings = Settings.from_environment(os.environ)
    kube = await Kube.connect()
    try:
        await App(kube, settings).run()
    except Exception:
        # The process boundary: whatever it was, the next process starts from the journal.
        logging.getLogger("fairlead.engine").exception("the engine ends")
        return 1
    finally:
        await kube.close()
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
