"""The store: the journal of every run, its payloads and frozen revisions. No record, no action."""

from fairlead.engine.store.backend import Place
from fairlead.engine.store.rows import AuditPlace, EndedRun, RunRow, ScheduleRow
from fairlead.engine.store.store import Store

__all__ = ["AuditPlace", "EndedRun", "Place", "RunRow", "ScheduleRow", "Store"]
