"""`python -m examples.demo [--local]`: on a cluster where one can run, else in local mode, saying why in one line."""

from __future__ import annotations

import argparse
import subprocess
import sys

from examples.demo import cluster, local
from tests.cluster import why_not


def main() -> int:
    """Run the demo and return 0 when everything went as it should: twelve answers, one refusal."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--local", action="store_true", help="in one process, without a cluster")
    parser.add_argument("--runs", type=int, default=12, help="how many of the customer messages")
    options = parser.parse_args()
    try:
        if options.local:
            return local.demo(options.runs)
        if why := why_not():
            print(f"No cluster here: {why}. The same in local mode:", flush=True)
            return local.demo(options.runs)
        return cluster.demo(options.runs)
    except subprocess.CalledProcessError as error:
        print(f"\n{' '.join(map(str, error.cmd))} ended with {error.returncode}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
