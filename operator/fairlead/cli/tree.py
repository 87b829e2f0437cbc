"""The step tree: how far a run is, as lines of text. Fed from a status (cluster) or from the state (local mode).

Live on a terminal, one line per change elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any

from fairlead.cli.output import duration

if TYPE_CHECKING:
    from rich.live import Live

    from fairlead.flow.state import RunState

MARKS = {"Succeeded": "✔", "Failed": "✖", "Skipped": "-", "Running": "▸", "BackingOff": "…", "Waiting": "…"}
COLOURS = {"Succeeded": "green", "Failed": "red", "Skipped": "dim", "Running": "cyan"}

MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step as it is shown. Times are Unix ms; `tokens` of all attempts."""

    path: str
    phase: str
    attempts: int = 1
    started_ms: int | None = None
    finished_ms: int | None = None
    tokens: int = 0
    message: str = ""


def from_status(rows: Iterable[Mapping[str, Any]]) -> list[StepLine]:
    """Return the lines of a WorkflowRun's `status.steps`, in the order of their start."""
    lines = [
        StepLine(
            path=row["path"],
            phase=row["phase"],
            attempts=row.get("attempts", 0),
            started_ms=milliseconds(row.get("startedAt")),
            finished_ms=milliseconds(row.get("finishedAt")),
            tokens=row.get("tokens", 0),
            message=row.get("message", ""),
        )
        for row in rows
    ]
    return sorted(lines, key=lambda line: (line.started_ms is None, line.started_ms or 0, line.path))


def from_state(state: RunState, paths: Iterable[str]) -> list[StepLine]:
    """Return the lines of these steps of a run's state."""
    from fairlead.flow.journal import Path

    return [
        StepLine(
            path=step.path,
            phase=step.phase,
            attempts=step.attempt,
            started_ms=step.started_at or None,
            finished_ms=step.finished_at,
            tokens=step.tokens,
            message=f"{step.error.reason}: {step.error.message}"
            if step.error and step.phase != "Succeeded"
            else step.partial or (f"done by run {step.reused_from}" if step.reused_from else ""),
        )
        for path in paths
        if (step := state.steps.get(Path(path)))
    ]


def milliseconds(timestamp: str | None) -> int | None:
    """Return the Unix ms of an RFC 3339 time."""
    return int(datetime.fromisoformat(timestamp).timestamp() * 1000) if timestamp else None


def render(lines: Sequence[StepLine], *, now_ms: int, width: int) -> list[str]:
    """Return one text line per step, children below what holds them."""
    from fairlead.telemetry.spans import parent_path

    known = {line.path for line in lines}
    below: dict[str, list[StepLine]] = {}
    for line in lines:
        above = parent_path(line.path)
        while above and above not in known:
            above = parent_path(above)
        below.setdefault(above, []).append(line)

    def walk(above: str, depth: int) -> Iterable[str]:
        for line in below.get(above, ()):
            label = line.path[len(above) :].lstrip("/!") if above else line.path
            yield _text(line, "  " * depth + label, now_ms, width)
            yield from walk(line.path, depth + 1)

    return list(walk("", 0))


def _text(line: StepLine, label: str, now_ms: int, width: int) -> str:
    parts = []
    if line.started_ms is not None and line.phase != "Skipped":
        parts.append(duration((now_ms if line.finished_ms is None else line.finished_ms) - line.started_ms))
    parts += [f"{line.tokens} tokens"] if line.tokens else []
    parts += [f"attempt {line.attempts}"] if line.attempts > 1 else []
    parts += [line.message] if line.message else []
    return clip(f"{MARKS.get(line.phase, '?')} {label:<24} {'  '.join(parts)}", width)


def _stage(line: StepLine | None) -> tuple[str, int] | None:
    return (line.phase, line.attempts) if line is not None else None


def _when(line: StepLine) -> tuple[float, int]:
    """What ended first comes first, and of what ended at once the inner before the outer; then what goes on."""
    return (inf, len(line.path)) if line.finished_ms is None else (line.finished_ms, -len(line.path))


def clip(text: str, width: int) -> str:
    """Cut a line at `width` characters without touching the spaces in it."""
    line = "".join(char if char.isprintable() else " " for char in text).rstrip()
    return line if len(line) <= width else line[: width - 1] + "…"


class Progress:
    """Shows a run while it happens: redrawn on a terminal, else one line per step and change of phase.

    However many steps there are, it keeps MOST_LINES of them: those that are open, then failed, then the latest.
    """

    def __init__(self, title: str, *, live: bool | None = None) -> None:
        """`live` None means: only if standard error is a terminal."""
        self._title = title
        self._lines: dict[str, StepLine] = {}
        self._live: Live | None = None
        if sys.stderr.isatty() if live is None else live:
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True, highlight=False), auto_refresh=False, transient=False)
            self._live.start()
        else:
            print(title, file=sys.stderr, flush=True)

    @property
    def open(self) -> list[str]:
        """Return the paths of the steps that have not ended, as far as they were shown."""
        return [line.path for line in self._lines.values() if line.finished_ms is None]

    def update(self, lines: Sequence[StepLine], *, now_ms: int) -> None:
        """Show where these steps stand now; what is known of the others still holds."""
        changed = [line for line in lines if _stage(self._lines.get(line.path)) != _stage(line)]
        self._lines.update((line.path, line) for line in lines)
        ended = [line for line in self._lines.values() if line.finished_ms is not None]
        surplus = max(0, len(self._lines) - MOST_LINES)
        for line in sorted(ended, key=lambda line: line.phase == "Failed")[:surplus]:
            del self._lines[line.path]
        if self._live is not None:
            self._redraw(self._live, [*self._lines.values()], now_ms)
            return
        for line in sorted(changed, key=_when):
            print("  " + _text(line, line.path, now_ms, 118), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the last picture standing."""
        if self._live is not None:
            self._live.stop()

    def _redraw(self, live: Live, lines: Sequence[StepLine], now_ms: int) -> None:
        from rich.text import Text

        shown = Text(self._title + "\n", style="bold")
        for text in render(lines, now_ms=now_ms, width=live.console.width - 2):
            phase = next((name for name, mark in MARKS.items() if text.lstrip().startswith(mark)), "")
            shown.append(f"  {text}\n", style=COLOURS.get(phase, "none"))
        live.update(shown, refresh=True)
