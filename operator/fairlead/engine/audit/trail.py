"""The chains while they grow: one per run, and one over the heads of all runs, the anchors.

The store asks for the rows of every entry that it appends and writes them in the same transaction, so that there is no
entry without its record. Nothing here waits or touches a disk.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.engine.audit.records import Keyed, hash_of, is_audited, record_hash, record_of
from fairlead.flow.journal import Draft, Entry, EntryKind, RunUid

ENDED_KEPT = 10_000
"""So many runs that have ended are kept in mind, for answers that come late."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The end of a chain: how many records it has, and the hash of the last one ("" for none)."""

    records: int = 0
    head: str = ""


@dataclass(slots=True)
class _Chain:
    """A run's chain, and who its calls are made as."""

    who: Mapping[str, Any] = field(default_factory=dict)
    end: AuditHead = AuditHead()
    anchored: AuditHead = AuditHead()


class Trail:
    """Makes the records of a store. `anchors` is the end of the chain of anchors."""

    def __init__(self, key: bytes, anchors: AuditHead) -> None:
        """Take the key of the store, and the end of the chain of anchors."""
        self._keyed = Keyed(key)
        self.anchors = anchors
        self._open: dict[RunUid, _Chain] = {}
        self._ended: OrderedDict[RunUid, _Chain] = OrderedDict()

    def resume(self, run_uid: RunUid, accepted: Mapping[str, Any] | None, end: AuditHead) -> None:
        """Go on with the chain of a run that an earlier process began.

        Args:
            run_uid: the run.
            accepted: the data of its first entry.
            end: of its chain; empty if it was written by a version without an audit.
        """
        self._open[run_uid] = _Chain(_who(accepted or {}), end)

    def head(self, run_uid: RunUid) -> AuditHead | None:
        """Return the end of a run's chain; None when it ended long ago or was never seen."""
        chain = self._open.get(run_uid) or self._ended.get(run_uid)
        return chain.end if chain is not None else None

    def record(self, entry: Entry) -> Row | None:
        """Return the row of an entry's record; None if it has none."""
        if not is_audited(entry.kind):
            return None
        chain = self._open.setdefault(entry.run_uid, _Chain())
        if entry.kind is EntryKind.RUN_ACCEPTED:
            chain.who = _who(entry.data)
        return self._add(chain, entry)

    def late(self, run_uid: RunUid, draft: Draft, at_ms: int) -> Row | None:
        """Return the row of an answer that came too late; None of a run that nobody remembers."""
        return self._beside(run_uid, draft, at_ms, late=True)

    def refused(self, run_uid: RunUid, draft: Draft, at_ms: int) -> Row | None:
        """Return the row of what was refused to a pod of a run before it was a call; None as `late`."""
        return self._beside(run_uid, draft, at_ms, late=False)

    def anchor(self, run_uid: RunUid, at_ms: int) -> Row | None:
        """Return the next anchor: the head of a run's chain as it is now; None if the last one says the same."""
        chain = self._open.get(run_uid) or self._ended.get(run_uid)
        if chain is None or chain.end == chain.anchored:
            return None
        chain.anchored, number = chain.end, self.anchors.records + 1
        anchor = {
            "n": number,
            "previous": self.anchors.head,
            "at": at_ms,
            "run": run_uid,
            "records": chain.end.records,
            "head": chain.end.head,
        }
        self.anchors = AuditHead(number, record_hash(anchor))
        return {"n": number, "run_uid": run_uid, "anchor": canonical_json(anchor)}

    def end(self, run_uid: RunUid) -> None:
        """Take note that a run has ended."""
        chain = self._open.pop(run_uid, None)
        if chain is not None:
            self._ended[run_uid] = chain
            while len(self._ended) > ENDED_KEPT:
                self._ended.popitem(last=False)

    def open_runs(self) -> list[RunUid]:
        """Return the runs whose chains grow."""
        return list(self._open)

    def _beside(self, run_uid: RunUid, draft: Draft, at_ms: int, *, late: bool) -> Row | None:
        """Return the row of what is no entry of the journal."""
        chain = self._open.get(run_uid) or self._ended.get(run_uid)
        entry = Entry(run_uid, 0, at_ms, draft.kind, draft.path, draft.attempt, draft.data)
        return self._add(chain, entry, late=late) if chain is not None else None

    def _add(self, chain: _Chain, entry: Entry, *, late: bool = False) -> Row:
        number, previous = chain.end.records + 1, chain.end.head
        record = canonical_json(record_of(entry, chain.who, self._keyed, number=number, previous=previous, late=late))
        chain.end = AuditHead(number, hash_of(record))
        return {"run_uid": entry.run_uid, "n": number, "at": entry.at, "record": record}


def _who(accepted: Mapping[str, Any]) -> dict[str, Any]:
    return {key: accepted[key] for key in ("account", "requestedBy") if accepted.get(key)}
