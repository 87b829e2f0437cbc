"""Spans leave over OTLP; a dead backend costs spans and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter as OtelExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fairlead.telemetry.export import SpanExporter, TraceCounts
from fairlead.telemetry.spans import Span

TRACE = "7f0c6c1e000040008000000000000001"


def span(number: int) -> Span:
    return Span(TRACE, f"{number:016x}", "", "step", 1, 2, {"a": "b"}, error="Timeout" if number == 2 else "")


class Refusing(OtelExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        return None


class Stuck(Refusing):
    def __init__(self) -> None:
        self.release = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.release.wait()
        return SpanExportResult.SUCCESS


def test_spans_arrive_with_their_predicted_ids() -> None:
    memory = InMemorySpanExporter()
    exporter = SpanExporter(memory)
    exporter.submit([span(1), span(2)])
    exporter.close()
    arrived = memory.get_finished_spans()
    assert [f"{s.context.trace_id:032x}" for s in arrived if s.context] == [TRACE, TRACE]
    assert [f"{s.context.span_id:016x}" for s in arrived if s.context] == [f"{1:016x}", f"{2:016x}"]
    assert [s.status.is_ok for s in arrived] == [True, False]
    assert exporter.counts(TRACE) == TraceCounts(exported=2)


@pytest.mark.requirement("F42")
def test_a_backend_that_refuses_costs_spans_that_are_counted() -> None:
    lost: list[int] = []
    exporter = SpanExporter(Refusing(), on_dropped=lost.append)
    exporter.submit([span(1), span(3)])
    exporter.close()
    assert exporter.counts(TRACE) == TraceCounts(dropped=2)
    assert sum(lost) == 2


@pytest.mark.requirement("F42")
def test_a_backend_that_hangs_never_blocks_the_engine() -> None:
    backend = Stuck()
    exporter = SpanExporter(backend)
    exporter.submit([span(number) for number in range(20_000)])
    assert exporter.counts(TRACE).dropped > 0
    backend.release.set()
    exporter.close()


def test_without_an_endpoint_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    exporter = SpanExporter.from_environment()
    exporter.submit([span(1)])
    exporter.close()
    assert not exporter.enabled
    assert exporter.counts(TRACE) == TraceCounts()
