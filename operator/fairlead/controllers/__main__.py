"""`python3 -m fairlead.controllers`: the operator's process."""

from __future__ import annotations

import logging
import os
import sys

import uvloop

from fairlead.controllers.app import App
from fairlead.controllers.settings import Settings
from fairlead.kube.client import Kube
from fairlead.telemetry import logs


async def main() -> int:
    """Run the operator; the exit code is 0 only after SIGTERM or SIGINT."""
    logs.configure("operator")
    settings = Settings.from_environment(os.environ)
    kube = await Kube.connect()
    try:
        await App(kube, settings).run()
    except Exception:
        # The process boundary: whatever it was, the next process starts from what the cluster says.
        logging.getLogger("fairlead.controllers").exception("the operator ends")
        return 1
    finally:
        await kube.close()
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
