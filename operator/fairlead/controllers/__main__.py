"""`python3 -m fairlead.controllers`: the operator's process."""

from __future__ import annotations

import os
import sys

from fairlead.process import Serve, run


def load() -> Serve:
    """Import the operator and return its work."""
    from fairlead.controllers.app import App
    from fairlead.controllers.settings import Settings

    settings = Settings.from_environment(os.environ)
    return lambda kube: App(kube, settings).run()


if __name__ == "__main__":
    sys.exit(run("operator", load))
