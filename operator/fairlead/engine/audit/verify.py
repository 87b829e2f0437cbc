"""Was a chain touched? Each record names the hash of the one before it, and the cluster knows how far the chain went.

Whoever can write the store can make a chain that is sound in itself. It does not fit what the run's status said of it,
which the API server has, and its audit log; nor the anchors, if these were not forged as well. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fairlead.engine.audit.records import AuditType, record_hash
from fairlead.engine.audit.trail import AuditHead
from fairlead.flow.journal import TERMINAL

Record = Mapping[str, Any]

_PARTS = ("n", "previous", "run", "type", "event", "at")
_ANCHOR_PARTS = ("n", "previous", "run", "records", "head", "at")
_TERMINAL = frozenset(kind.value for kind in TERMINAL)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which record (0: with the chain as a whole)."""

    number: int
    message: str

    def __str__(self) -> str:
        return f"record {self.number}: {self.message}" if self.number else self.message


def readable(record: bytes) -> Record:
    """Return a record as it stands in the store; an empty one, in which everything is missing, of what is no record."""
    try:
        found = orjson.loads(record)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def verify_run(run_uid: str, records: Sequence[Record], anchored: AuditHead | None) -> list[Problem]:
    """Return what is wrong with a run's chain.

    Args:
        run_uid: the run.
        records: its records as they were found, in their order.
        anchored: how far the chain went and its hash there, as the run's status says; None where nobody knows.
    """
    whole = [record for record in records if "n" in record]
    return [*_links(run_uid, records), *_end(records, anchored), *_pairs(whole)]


def verify_anchors(
    anchors: Sequence[Record], chains: Mapping[str, Sequence[Record]], *, kept_since_ms: int | None = None
) -> list[Problem]:
    """Return what is wrong with the chain of anchors, and where they contradict the chains of runs.

    Args:
        anchors: as they were found, in their order.
        chains: the records of runs by UID.
        kept_since_ms: Unix ms since which all records are kept, so that a run without any is missed; None where
            `chains` has some of the runs only: then those that it has not are not looked at.
    """
    found = [*_links("", anchors)]
    for anchor in anchors if not found else ():
        records = chains.get(anchor["run"])
        missed = kept_since_ms is not None and anchor["at"] >= kept_since_ms
        if records is None and not missed:
            continue
        if not _holds(records or (), AuditHead(anchor["records"], anchor["head"])):
            which = "and there are none" if not records else "and these are others"
            said = f"run {anchor['run']} had {anchor['records']} records when it was made, {which}"
            found.append(Problem(anchor["n"], said))
    return found


def _links(run_uid: str, records: Sequence[Record]) -> Iterator[Problem]:
    previous = ""
    for number, record in enumerate(records, 1):
        if absent := [part for part in (_PARTS if run_uid else _ANCHOR_PARTS) if part not in record]:
            yield Problem(number, f"it has no {', '.join(absent)}: it is none of ours")
            return
        if record["n"] != number:
            yield Problem(number, f"record {record['n']} stands in its place: one is missing, was added or moved")
            return
        if record["previous"] != previous:
            what = (
                f"record {number - 1} was changed, or this one is not what followed it"
                if number > 1
                else "it is not the first"
            )
            yield Problem(number, what)
            return
        if run_uid and record["run"] != run_uid:
            yield Problem(number, f"it is of another run, {record['run']}")
            return
        previous = record_hash(record)


def _end(records: Sequence[Record], anchored: AuditHead | None) -> Iterator[Problem]:
    if anchored is None or _holds(records, anchored):
        return
    if len(records) < anchored.records:
        yield Problem(
            0, f"the run's status knows of {anchored.records} records, there are {len(records)}: the end is missing"
        )
    else:
        yield Problem(0, f"the first {anchored.records} records are not those that the run's status knows of")


def _holds(records: Sequence[Record], head: AuditHead) -> bool:
    if head.records == 0:
        return True
    return len(records) >= head.records and record_hash(records[head.records - 1]) == head.head


def _pairs(records: Sequence[Record]) -> Iterator[Problem]:
    """Yield intents without an outcome in a run that has ended, and outcomes without an intent.

    Only of records that have their parts: of others `_links` has told.
    """
    intents: dict[tuple[Any, ...], int] = {}
    ended = False
    for record in records:
        where = record.get("where")
        where = where if isinstance(where, Mapping) else {}
        place = tuple(str(where.get(key)) for key in ("path", "attempt", "index"))
        ended = ended or record.get("event") in _TERMINAL
        match record.get("type"):
            case AuditType.INTENT:
                intents[place] = record["n"]
            case AuditType.OUTCOME if intents.pop(place, None) is None:
                yield Problem(record["n"], "an outcome of a call without an intent")
            # A call that was open at a crash and may not be made again; what came of one that nobody waited for.
            case AuditType.DENY | AuditType.LATE:
                intents.pop(place, None)
    for number in intents.values() if ended else ():
        yield Problem(number, "the run has ended, and this call has no outcome")
