"""The command line: `python -m tests.bench [--local] [--cluster] [--repeats N] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench import cluster, local, machine, report
from tests.bench.figures import Figure
from tests.cluster import why_not

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/performance.md"


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, write the JSON and renew the tables of the document."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and namespaces are removed
    arguments.out.mkdir(parents=True, exist_ok=True)
    both = arguments.local == arguments.cluster
    if both or arguments.local:
        here = machine.describe(arguments.out)
        found = asyncio.run(local.measure(arguments.out, repeats=arguments.repeats, say=_say))
        _publish("local", here, found, arguments)
    if both or arguments.cluster:
        return _on_a_cluster(arguments, required=not both)
    return 0


def _on_a_cluster(arguments: argparse.Namespace, *, required: bool) -> int:
    """Measure on a cluster; where none can run that is said, and an error only if a cluster was asked for."""
    reason = "" if "KUBECONFIG" in os.environ else why_not()
    if reason:
        _say(f"no cluster here: {reason}")
        return 1 if required else 0
    _publish(
        "cluster", machine.describe(arguments.out), cluster.measure(repeats=arguments.repeats, say=_say), arguments
    )
    return 0


def _publish(name: str, here: Mapping[str, Any], found: Sequence[Figure], arguments: argparse.Namespace) -> None:
    report.write_json(arguments.out / f"{name}.json", here, found)
    tables = f"{report.machine_table(here)}\n\n{report.table(found)}"
    print(tables)
    if not arguments.keep_document:
        report.update(DOCUMENT, name, tables)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure Fairlead on this machine.")
    parser.add_argument("--local", action="store_true", help="only the engine without a cluster")
    parser.add_argument("--cluster", action="store_true", help="only an installation on the test cluster")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions, for the spread (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/bench", help="folder of the results (%(default)s)")
    parser.add_argument("--keep-document", action="store_true", help="leave docs/performance.md as it is")
    return parser


if __name__ == "__main__":
    sys.exit(main())
