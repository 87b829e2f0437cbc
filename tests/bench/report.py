"""Results for machines and for people: a JSON file, and the tables of docs/performance.md between their markers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.figures import Figure

HEAD = "| what | target | measured: median (min to max) | × baseline |\n|---|---|---|---|"


def write_json(path: Path, machine: Mapping[str, Any], found: Sequence[Figure]) -> None:
    """Write a file of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": dict(machine), "figures": [figure.as_data() for figure in found]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(found: Sequence[Figure]) -> str:
    """Return the figures as a Markdown table."""
    by_key = {figure.key: figure for figure in found}
    return "\n".join([HEAD, *(_row(figure, by_key) for figure in found)])


def machine_table(machine: Mapping[str, Any]) -> str:
    """Return the machine as a Markdown table."""
    rows = [f"| {name} | {_plain(what)} |" for name, what in machine.items()]
    return "\n".join(["| machine | |", "|---|---|", *rows])


def update(document: Path, name: str, content: str) -> None:
    """Replace what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a document.

    Raises:
        ValueError: the markers are not there.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    text = document.read_text(encoding="utf-8")
    if not re.search(f"{begin}.*{end}", text, re.DOTALL):
        raise ValueError(f"{document} has no {begin} and {end}")
    replaced = re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)
    document.write_text(replaced, encoding="utf-8")


def _row(figure: Figure, by_key: Mapping[str, Figure]) -> str:
    title = figure.title
    measured = "; ".join(_spread(figure, statistic) for statistic in figure.values)
    return f"| {title.what} | {title.target} | {measured} | {_ratio(figure, by_key.get(title.baseline))} |"


def _spread(figure: Figure, statistic: str) -> str:
    values = figure.values[statistic]
    label = "" if statistic == "value" else f"{statistic} "
    unit = figure.title.unit.replace("1/", "/")
    smallest, middle, largest = (_number(of(values)) for of in (min, median, max))
    spread = f" ({smallest} to {largest})" if smallest != largest else ""
    return f"{label}{middle} {unit}{spread}"


def _ratio(figure: Figure, baseline: Figure | None) -> str:
    """Compare medians: p50 with p50, and a mean with p50 too."""
    if baseline is None:
        return ""
    own, other = (one.median("p50" if "p50" in one.values else "value") for one in (figure, baseline))
    return f"{own / other:.1f}"


def _number(of: float) -> str:
    return f"{of:,.0f}" if of >= 100 or of == int(of) else f"{of:.2f}" if of < 10 else f"{of:.1f}"


def _plain(what: Any) -> str:
    if isinstance(what, Mapping):
        return ", ".join(f"{key} {item}" for key, item in what.items())
    if isinstance(what, list):
        return ", ".join(map(str, what))
    return str(what)
