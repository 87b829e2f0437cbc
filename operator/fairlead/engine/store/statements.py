"""What commits execute, built once: building a statement takes longer than the database takes to execute it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Table, bindparam, delete, update

from fairlead.engine.store import schema

_RUN = update(schema.runs).where(schema.runs.c.uid == bindparam("run"))


class Statements:
    """The writes of a store. SQLite and PostgreSQL speak alike of conflicts, each through its own `insert`."""

    def __init__(self, insert: Callable[[Table], Any]) -> None:
        schedules, windows = insert(schema.schedules), insert(schema.windows)
        columns = schema.schedules.c
        self.put_meta = insert(schema.meta).on_conflict_do_nothing()
        self.put_revisions = insert(schema.revisions).on_conflict_do_nothing()
        self.put_runs = insert(schema.runs)
        self.put_payloads = insert(schema.payloads).on_conflict_do_nothing()
        self.put_payload_refs = insert(schema.payload_refs).on_conflict_do_nothing()
        self.put_entries = insert(schema.entries)
        self.put_audit = insert(schema.audit)
        self.put_anchors = insert(schema.anchors)
        self.put_schedules = schedules.on_conflict_do_update(
            index_elements=["workflow_uid", "name"],
            set_={name: schedules.excluded[name] for name in ("definition", "decided_at")},
        )
        self.put_windows = windows.on_conflict_do_update(
            index_elements=["policy", "period", "start"],
            set_={name: windows.excluded[name] for name in ("tokens", "cost", "runs")},
        )
        self.drop_schedules = delete(schema.schedules).where(
            columns.workflow_uid == bindparam("uid"), columns.name == bindparam("schedule")
        )
        self.park_runs = _RUN.values(wake_at=bindparam("at"))
        self.close_runs = _RUN.values(state=bindparam("ended"), ended_at=bindparam("at"), wake_at=None)
        self.forget_runs = _RUN.values(forgotten_at=bindparam("at"))
        self.drop_runs = delete(schema.runs).where(schema.runs.c.uid == bindparam("run"))
