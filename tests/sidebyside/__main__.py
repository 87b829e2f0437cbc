"""The command line: `python -m tests.sidebyside [--runs N] [--repeats N] [--only NAME]`."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from tests.bench import machine, report
from tests.bench.figures import Repetition
from tests.servers import ledger
from tests.servers.serving import served
from tests.sidebyside.exam import STEPS, Marks, examine
from tests.sidebyside.process import ENTRANTS, FAIRLEAD, Entrant
from tests.sidebyside.race import bare, race

from fairlead.cli.standins import running
from fairlead.cli.withfile import Environment, StandIn

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/performance.md"
CALLED = ("Tool", "called")
FUNCTIONS = ("append", "append_keyed")
RACE_HEAD = """\
| engine | 3 calls, p50 | 20 calls, p50 | 20 calls, p99 | calls a second, 32 runs at once |
|---|---|---|---|---|"""
EXAM_HEAD = f"""\
| called | engine | runs of {STEPS} calls | kills | completed | says: unknown | failed | not ended | repeated | lost |
|---|---|---|---|---|---|---|---|---|---|"""

Sitting = tuple[str, str]
"""The function that was called, and the engine."""


def main(argv: list[str] | None = None) -> int:
    """Compare, print the tables, write the JSON and renew the document. 1 if Fairlead lost or repeated something."""
    arguments = _parser().parse_args(argv)
    entrants = [one for one in ENTRANTS if arguments.only in (None, one.name)]
    arguments.out.mkdir(parents=True, exist_ok=True)
    races = asyncio.run(_races(entrants, arguments)) if arguments.repeats else {}
    marks = asyncio.run(_exams(entrants, arguments)) if arguments.runs else {}
    tables = "\n\n".join(table for table in (_race_table(races), _exam_table(marks)) if table)
    print(tables)
    content = {
        "races": races,
        "exams": [{"function": one, "engine": name, **found.as_data()} for (one, name), found in marks.items()],
    }
    (arguments.out / "sidebyside.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if not arguments.keep_document:
        here = report.machine_table(machine.describe(arguments.out) | {"versions": _versions(entrants)})
        report.update(DOCUMENT, "sidebyside", f"{here}\n\n{tables}")
    ours = [found for (_, name), found in marks.items() if name == FAIRLEAD.name]
    return int(any(one.lost + one.repeated + one.other + one.open for one in ours))


async def _races(entrants: Sequence[Entrant], arguments: argparse.Namespace) -> dict[str, list[Repetition]]:
    found: dict[str, list[Repetition]] = {}
    instant = StandIn(command=[sys.executable, "-m", "tests.bench.instant", "--port=${PORT}"], ready="/seconds")
    with tempfile.TemporaryDirectory(dir=arguments.out) as logs:
        environment = Environment({CALLED: instant}, folder=ROOT)
        async with running(environment, wanted={CALLED}, store=Path(logs)) as addresses:
            for number in range(arguments.repeats):
                found.setdefault("the calls alone", []).append(await bare(addresses[CALLED]))
                for entrant in entrants:
                    _say(f"race {number + 1}/{arguments.repeats}: {entrant.name}")
                    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
                        found.setdefault(entrant.name, []).append(await race(entrant, Path(folder), addresses[CALLED]))
    return found


async def _exams(entrants: Sequence[Entrant], arguments: argparse.Namespace) -> dict[Sitting, Marks]:
    found = {}
    for function, entrant in itertools.product(FUNCTIONS, entrants):
        with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
            file = Path(folder) / "ledger.jsonl"
            async with served(ledger.create_app(file)) as url:
                chance = random.Random(arguments.seed)
                found[function, entrant.name] = await examine(
                    entrant, Path(folder), url, file, function=function, runs=arguments.runs, chance=chance, say=_say
                )
    return found


def _race_table(races: Mapping[str, Sequence[Repetition]]) -> str:
    if not races:
        return ""
    rows = [RACE_HEAD]
    for name, repetitions in races.items():
        cells = [
            _spread([one[key][statistic] for one in repetitions if key in one], unit)
            for key, statistic, unit in (
                ("three", "p50", " ms"),
                ("twenty", "p50", " ms"),
                ("twenty", "p99", " ms"),
                ("per_second", "value", ""),
            )
        ]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _exam_table(marks: Mapping[Sitting, Marks]) -> str:
    if not marks:
        return ""
    rows = [
        f"| `{function}` | {name} | {found.runs} | {found.kills} | {found.completed} | {found.unknown} | {found.other} "
        f"| {found.open} | {found.repeated} | {found.lost} |"
        for (function, name), found in marks.items()
    ]
    return "\n".join([EXAM_HEAD, *rows])


def _spread(values: Sequence[float], unit: str) -> str:
    if not values:
        return ""
    smallest, middle, largest = (
        f"{of(values):,.0f}" if max(values) >= 100 else f"{of(values):.1f}" for of in (min, median, max)
    )
    return f"{middle}{unit} ({smallest} to {largest})"


def _versions(entrants: Sequence[Entrant]) -> dict[str, str]:
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    return {
        entrant.name: subprocess.run(
            (entrant.command[0], "-c", code, entrant.package), capture_output=True, text=True, check=True
        ).stdout.strip()
        for entrant in entrants
    }


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sidebyside", description="Fairlead beside other engines.")
    parser.add_argument("--only", help="only this engine")
    parser.add_argument("--repeats", type=int, default=3, help="races, for the spread; 0 for none (%(default)s)")
    parser.add_argument("--runs", type=int, default=100, help="runs of the crash exam; 0 for none (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments of the kills (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "build/sidebyside", help="folder of the results (%(default)s)"
    )
    parser.add_argument("--keep-document", action="store_true", help="leave docs/performance.md as it is")
    return parser


if __name__ == "__main__":
    sys.exit(main())
