"""Was a chain touched? Each record names the hash of the one before it, and the cluster knows how far the chain went.

Whoever can write the store can make a chain that is sound in itself. It does not fit what the run's status said of it,
which the API server has, and its audit log; nor the anchors, if these were not forged as well. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairlead.engine.audit.records import AuditType, record_hash
from fairlead.engine.audit.trail import AuditHead
from fairlead.flow.journal import TERMINAL

Record = Mapping[str, Any]

_TERMINAL = frozenset(kind.value for kind in TERMINAL)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and at which record (0: with the chain as a whole)."""

    number: int
    message: str

    def __str__(self) -> str:
        return f"record {self.number}: {self.message}" if self.number else self.message


def verify_run(run_uid: str, records: Sequence[Record], anchored: AuditHead | None) -> list[Problem]:
    """Return what is wrong with a run's chain.

    Args:
        run_uid: the run.
        records: its records as they were found, in their order.
        anchored: how far the chain went and its hash there, as the run's status says; None where nobody knows.
    """
    return [*_links(run_uid, records), *_end(records, anchored), *_pairs(records)]


def verify_anchors(anchors: Sequence[Record], chains: Mapping[str, Sequence[Record]]) -> list[Problem]:
    """Return what is wrong with the chain of anchors, and where they contradict the chains of runs that are there.

    Args:
        anchors: as they were found, in their order.
        chains: the records of runs by UID; those of runs that are not in it are not looked at.
    """
    found = [*_links("", anchors)]
    for anchor in anchors:
        records = chains.get(anchor["run"])
        if records is not None and not _holds(records, AuditHead(anchor["records"], anchor["head"])):
            found.append(
                Problem(anchor["n"], f"run {anchor['run']} had {anchor['records']} other records when it was made")
            )
    return found


def _links(run_uid: str, records: Sequence[Record]) -> Iterator[Problem]:
    previous = ""
    for number, record in enumerate(records, 1):
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
    """Yield intents without an outcome in a run that has ended, and outcomes without an intent."""
    intents: dict[tuple[Any, ...], int] = {}
    ended = False
    for record in records:
        place = tuple((record.get("where") or {}).get(key) for key in ("path", "attempt", "index"))
        ended = ended or record["event"] in _TERMINAL
        if record["type"] == AuditType.INTENT:
            intents[place] = record["n"]
        elif record["type"] == AuditType.OUTCOME and intents.pop(place, None) is None:
            yield Problem(record["n"], "an outcome of a call without an intent")
    for number in intents.values() if ended else ():
        yield Problem(number, "the run has ended, and this call has no outcome")
