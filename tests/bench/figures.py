"""What a benchmark brings back: figures, each with one value per repetition, so that the spread is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

Statistics = Mapping[str, float]
"""Statistics of one repetition: p50 and p99 of many samples, or the one `value`."""

Repetition = Mapping[str, Statistics]
"""What one repetition found, by the key of the figure."""


@dataclass(frozen=True, slots=True)
class Title:
    """What a figure says.

    Attributes:
        what: for people.
        unit: of every value.
        target: what must be reached, in words; empty where nothing was promised.
        baseline: the key of the raw figure that it is compared with; empty for none.
    """

    what: str
    unit: str
    target: str = ""
    baseline: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured: by statistic, one value per repetition."""

    key: str
    title: Title
    values: Mapping[str, Sequence[float]]

    def median(self, statistic: str) -> float:
        """Return the median over the repetitions."""
        return median(self.values[statistic])

    def as_data(self) -> dict[str, Any]:
        """Return the JSON form, with the spread of each statistic."""
        spread = {
            name: {"min": min(values), "median": median(values), "max": max(values)}
            for name, values in self.values.items()
        }
        return {"key": self.key, **asdict(self.title), "values": dict(self.values), "spread": spread}


def figures(titles: Mapping[str, Title], repetitions: Sequence[Repetition]) -> list[Figure]:
    """Put repetitions together, in the order of the titles; what was measured only once has one value."""
    found = []
    for key, title in titles.items():
        each = [repetition[key] for repetition in repetitions if key in repetition]
        if each:
            found.append(Figure(key, title, {name: [round(one[name], 4) for one in each] for name in each[0]}))
    return found


def value(of: float) -> Statistics:
    """Return the statistics of a repetition that has one value."""
    return {"value": of}


def percentiles_ms(seconds: Sequence[float]) -> Statistics:
    """Return p50 and p99 in ms of many samples in seconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000}
