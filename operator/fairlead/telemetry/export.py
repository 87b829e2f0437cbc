"""Spans to a backend: OTLP over HTTP from a thread of its own, with a bounded buffer.

Configured by the standard `OTEL_*` variables only. A backend that is down costs spans, counted, and nothing else.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter as OtelExporter
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from fairlead import __version__
from fairlead.telemetry import semconv
from fairlead.telemetry.spans import Span

BUFFER = 10_000
BATCH = 512
RUNS_COUNTED = 10_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """What became of one run's spans."""

    exported: int = 0
    dropped: int = 0
    pending: int = 0


class SpanExporter:
    """Takes finished spans and never blocks. `exporter` is None when no endpoint is configured: spans are discarded."""

    def __init__(
        self, exporter: OtelExporter | None, *, on_dropped: Callable[[int], None] = lambda count: None
    ) -> None:
        self.enabled = exporter is not None
        self._exporter = exporter
        self._on_dropped = on_dropped
        self._queue: queue.Queue[Span | None] = queue.Queue(BUFFER)
        self._counts: OrderedDict[str, TraceCounts] = OrderedDict()
        self._lock = threading.Lock()
        self._resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "fairlead-engine")})
        self._thread = threading.Thread(target=self._drain, name="spans", daemon=True)
        if self.enabled:
            self._thread.start()

    @classmethod
    def from_environment(cls, *, on_dropped: Callable[[int], None] = lambda count: None) -> SpanExporter:
        """Return the exporter that the `OTEL_*` variables ask for."""
        wanted = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        return cls(OTLPSpanExporter() if wanted and not disabled else None, on_dropped=on_dropped)

    def submit(self, spans: Sequence[Span]) -> None:
        """Queue spans; what does not fit is dropped and counted."""
        if not self.enabled:
            return
        for span in spans:
            self._count(span.trace_id, pending=1)
            try:
                self._queue.put_nowait(span)
            except queue.Full:
                self._count(span.trace_id, pending=-1, dropped=1)
                self._on_dropped(1)

    def counts(self, trace: str) -> TraceCounts:
        """Return what became of a trace's spans so far."""
        with self._lock:
            return self._counts.get(trace, TraceCounts())

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Export what is queued, for a bounded time."""
        if self.enabled and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout_seconds)
        if self._exporter is not None:
            self._exporter.shutdown()

    def _drain(self) -> None:
        assert self._exporter is not None
        while (first := self._queue.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < BATCH:
                try:
                    span = self._queue.get_nowait()
                except queue.Empty:
                    break
                if span is None:
                    last = True
                    break
                batch.append(span)
            result = self._exporter.export([self._readable(span) for span in batch])
            sent = result is SpanExportResult.SUCCESS
            for span in batch:
                self._count(span.trace_id, pending=-1, exported=int(sent), dropped=int(not sent))
            if not sent:
                self._on_dropped(len(batch))
                log.warning("spans dropped: the OTLP endpoint did not take them", extra={"spans": len(batch)})
            if last:
                return

    def _count(self, trace: str, *, exported: int = 0, dropped: int = 0, pending: int = 0) -> None:
        with self._lock:
            old = self._counts.get(trace, TraceCounts())
            self._counts[trace] = replace(
                old,
                exported=old.exported + exported,
                dropped=old.dropped + dropped,
                pending=old.pending + pending,
            )
            while len(self._counts) > RUNS_COUNTED:
                self._counts.popitem(last=False)

    def _readable(self, span: Span) -> ReadableSpan:
        error = Status(StatusCode.ERROR, span.error_message or span.error) if span.error else Status(StatusCode.UNSET)
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            links=[Link(_context(span.link_trace_id or span.trace_id, span.link_id))] if span.link_id else [],
            kind=SpanKind.CLIENT if span.client else SpanKind.INTERNAL,
            status=error,
            start_time=span.start_ms * 1_000_000,
            end_time=span.end_ms * 1_000_000,
            instrumentation_scope=InstrumentationScope("fairlead", __version__, semconv.SCHEMA_URL),
        )


def _context(trace: str, span: str) -> SpanContext:
    return SpanContext(int(trace, 16), int(span, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
