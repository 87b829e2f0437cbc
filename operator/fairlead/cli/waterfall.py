"""A run's trace as a waterfall in the terminal: spans in, lines of text out. Pure.

The same spans that go to a tracing backend, so that none is needed to see where the time went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fairlead.cli.output import duration
from fairlead.telemetry import semconv

if TYPE_CHECKING:
    from fairlead.flow.journal import Entry
    from fairlead.telemetry.spans import Span

NARROWEST = 60
DURATION_WIDTH = 7


def spans_of(run_uid: str, entries: Iterable[Entry]) -> list[Span]:
    """Return the spans of a journal."""
    from fairlead.telemetry.spans import SpanFold

    fold = SpanFold(run_uid)
    return [span for entry in entries for span in fold.add(entry)]


def render(spans: Sequence[Span], *, width: int) -> list[str]:
    """Return the lines of the waterfall: name, bar, duration, tokens, error.

    Args:
        spans: of one trace, in any order. Spans of a run that goes on are shown as far as they have ended.
        width: of the terminal, in characters; at least 60 are used.
    """
    shown, above = _fold_single_attempts(spans)
    if not shown:
        return ["no span has ended yet"]
    width = max(width, NARROWEST)
    began = min(span.start_ms for span in shown)
    total = max(1, max(span.end_ms for span in shown) - began)
    rows = list(_rows(shown, above))
    names = min(max(len(_name(span, depth)) for span, depth in rows), width * 2 // 5)
    bars = max(10, width - names - DURATION_WIDTH - 22)
    lines = []
    for span, depth in rows:
        left = min((span.start_ms - began) * bars // total, bars - 1)
        length = max(1, min(round((span.end_ms - span.start_ms) * bars / total), bars - left))
        bar = " " * left + ("░" if span.error else "█") * length
        took = duration(span.end_ms - span.start_ms)
        line = f"{_fit(_name(span, depth), names)} {bar:<{bars}} {took:>{DURATION_WIDTH}} {_remark(span)}"
        lines.append(_fit(line, width).rstrip())
    return lines


def _fold_single_attempts(spans: Sequence[Span]) -> tuple[list[Span], Mapping[str, str]]:
    """Leave out what says nothing: "run started", and the attempt of a step that had only one."""
    attempts: dict[str, list[Span]] = {}
    for span in spans:
        if span.name.startswith("attempt "):
            attempts.setdefault(span.parent_id, []).append(span)
    folded = {found[0].span_id: parent for parent, found in attempts.items() if len(found) == 1}
    shown = [span for span in spans if span.name != "run started" and span.span_id not in folded]
    return shown, {span.span_id: folded.get(span.parent_id, span.parent_id) for span in shown}


def _rows(spans: Sequence[Span], above: Mapping[str, str]) -> Iterable[tuple[Span, int]]:
    known = {span.span_id for span in spans}
    below: dict[str, list[Span]] = {}
    for span in spans:
        parent = above[span.span_id]
        below.setdefault(parent if parent in known else "", []).append(span)

    def walk(parent: str, depth: int) -> Iterable[tuple[Span, int]]:
        for span in sorted(below.get(parent, ()), key=lambda span: (span.start_ms, -span.end_ms)):
            yield span, depth
            yield from walk(span.span_id, depth + 1)

    return walk("", 0)


def _name(span: Span, depth: int) -> str:
    name = span.name.removeprefix("invoke_workflow ").removeprefix("execute_tool ")
    if name.startswith("step "):
        name = name.rpartition("/")[2].removeprefix("step ")
    return "  " * depth + name


def _remark(span: Span) -> str:
    spent = span.attributes.get(semconv.GEN_AI_INPUT_TOKENS, 0), span.attributes.get(semconv.GEN_AI_OUTPUT_TOKENS, 0)
    tokens = f"{spent[0]}+{spent[1]} tok" if any(spent) else ""
    return " ".join(part for part in (tokens, f"✖ {span.error}" if span.error else "") if part)


def _fit(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"
