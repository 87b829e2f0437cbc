"""The command line: `python -m images build [NAME ...] --out FOLDER` and `python -m images models`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from images import models
from images.builder import build
from images.cache import Cache
from images.catalog import IMAGES
from images.commands import CommandError


def main() -> int:
    """Run one command; 0 when all is built, 1 with a line that says what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    building = commands.add_parser("build", help="build images and write them as archives")
    building.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGES)}; all by default")
    building.add_argument("--out", type=Path, required=True, help="folder for NAME.tar and NAME.json")
    building.add_argument("--base", help="base image to use instead of one made here or the Dockerfile's own")
    building.add_argument("--tag", default="dev", help='images are called localhost/NAME:TAG ("dev" by default)')
    local = commands.add_parser("models", help="lay out models and servers of the examples on this machine")
    local.add_argument("--json", action="store_true", help="print the paths as JSON instead of lines NAME=PATH")
    options = parser.parse_args()
    cache = Cache.of_user()
    try:
        with cache.lock():
            if options.command == "models":
                _print_paths(models.prepare(cache), as_json=options.json)
                return 0
            unknown = set(options.names) - set(IMAGES)
            if unknown:
                parser.error(f"no image {', '.join(sorted(unknown))}; there are {', '.join(IMAGES)}")
            for name in options.names or IMAGES:
                built = build(IMAGES[name], cache=cache, out=options.out, base=options.base, tag=options.tag)
                print(f"{built.reference}  {built.id[:19]}  {built.size / 1e6:.0f} MB  {built.archive}", flush=True)
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _print_paths(paths: dict[str, str], *, as_json: bool) -> None:
    print(json.dumps(paths) if as_json else "\n".join(f"{name}={path}" for name, path in paths.items()))


if __name__ == "__main__":
    sys.exit(main())
