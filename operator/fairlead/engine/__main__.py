"""`python3 -m fairlead.engine`: the engine's process."""

from __future__ import annotations

import os
import sys

from fairlead.process import Serve, run


def load() -> Serve:
    """Import the engine and return its work."""
    from fairlead.engine.app import App, Settings

    settings = Settings.from_environment(os.environ)
    return lambda kube: App(kube, settings).run()


if __name__ == "__main__":
    sys.exit(run("engine", load))
