"""What of a journal entry goes into the audit. Pure.

Records are derived from the entries while these are appended: there is no second place that must not forget to write
one. They hold no content: requests and results are there as keyed digests, so that no guess can be tried against them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from fairlead.api.canonical import canonical_json
from fairlead.flow.journal import TERMINAL, Entry, EntryKind
from fairlead.telemetry.ids import span_id, trace_id

VERSION = 1


class AuditType(StrEnum):
    """What a record says."""

    INTENT = "INTENT"  # a call was allowed and is about to be made
    OUTCOME = "OUTCOME"  # how it went, or that nobody knows
    DENY = "DENY"  # a call was not allowed
    APPROVAL = "APPROVAL"  # people were asked, or have decided
    ADMIN = "ADMIN"  # the run was accepted, told something, paused, resumed, closed, or ended
    LATE = "LATE"  # an answer came when its call was settled already; it changed nothing


_TYPES: Mapping[EntryKind, AuditType] = {
    EntryKind.CALL_INTENT: AuditType.INTENT,
    EntryKind.CALL_RESENT: AuditType.INTENT,
    EntryKind.CALL_OUTCOME: AuditType.OUTCOME,
    EntryKind.CALL_DENIED: AuditType.DENY,
    EntryKind.APPROVAL_REQUESTED: AuditType.APPROVAL,
    EntryKind.APPROVAL_DECIDED: AuditType.APPROVAL,
    **dict.fromkeys(
        (EntryKind.RUN_ACCEPTED, EntryKind.SIGNAL, EntryKind.PAUSED, EntryKind.RESUMED, EntryKind.CLOSING, *TERMINAL),
        AuditType.ADMIN,
    ),
}
_ADMIN = (
    *("workflow", "revision", "generation", "retryFrom", "parent", "scheduledAt", "wouldDeny"),
    *("name", "by", "reason", "message"),
)
"""What an ADMIN record says of its entry's data, where it is there."""

_ASKS = ("pod", "address", "user")
_WHAT = ("kind", "target", "function", "pin", "reach")
_WHY = ("rbac", "approvals", "label", "wouldDeny")
_WHY_NOT = ("reason", "stage", "message", "policy", "rule", "times")


class Keyed:
    """Digests with the key of this store: HMAC-SHA256."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, body: bytes) -> str:
        """Return `hmac-sha256:<hex>`."""
        return "hmac-sha256:" + hmac.digest(self._key, body, "sha256").hex()


def is_audited(kind: EntryKind) -> bool:
    """Tell whether entries of this kind have a record."""
    return kind in _TYPES


def record_of(
    entry: Entry, who: Mapping[str, Any], keyed: Keyed, *, number: int, previous: str, late: bool = False
) -> dict[str, Any]:
    """Return the record of an entry of an audited kind.

    Args:
        entry: the entry; its `seq` is 0 of what is none: of a late answer, or of what was refused to a pod.
        who: {account, requestedBy?} of the run.
        keyed: makes the digests of requests and results.
        number: the record's place in the chain of its run, from 1.
        previous: the hash of the record before; "" for the first.
        late: the answer came too late to be an entry.
    """
    record: dict[str, Any] = {
        "v": VERSION,
        "n": number,
        "previous": previous,
        "type": (AuditType.LATE if late else _TYPES[entry.kind]).value,
        "event": entry.kind.value,
        "at": entry.at,
        "run": entry.run_uid,
        "who": dict(who) | _kept(entry.data, _ASKS),
        "trace": trace_id(entry.run_uid),
    }
    if entry.seq:
        record["seq"] = entry.seq
    if entry.path:
        index = str(entry.data.get("index", ""))
        record["where"] = {"path": entry.path, "attempt": entry.attempt} | ({"index": index} if index else {})
        if index:
            record["span"] = span_id(entry.run_uid, entry.path, entry.attempt, "call", index)
    return record | _MORE[_TYPES[entry.kind]](entry, keyed)


def record_hash(record: Mapping[str, Any]) -> str:
    """Return `sha256:<hex>` of a record's canonical JSON: what the next record names as its previous."""
    return hash_of(canonical_json(record))


def hash_of(record: bytes) -> str:
    """Return `record_hash` of what is canonical JSON already."""
    return "sha256:" + hashlib.sha256(record).hexdigest()


def _intent(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    data, why = entry.data, {"decision": "Allow"}
    what = _what(entry, keyed) | {"effect": data.get("effect", ""), "keyed": "key" in data}
    if "child" in data:
        what["child"] = data["child"]["name"]
    what |= {"holds": data["holds"]} if "holds" in data else {}
    windows = [{"policy": policy, "start": start} for policy, _, start in data.get("windows", ())]
    return {"what": what, "why": why | _kept(data, _WHY) | ({"windows": windows} if windows else {})}


def _deny(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    what = _what(entry, keyed) | _kept(entry.data, ("effect",))
    why = {"decision": "Deny"} | _kept(entry.data, _WHY_NOT) | _kept(entry.data, _WHY)
    return ({"what": what} if what else {}) | {"why": why}


def _what(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    data = entry.data
    what = _kept(data, _WHAT)
    return what | ({"request": keyed.of(data["digest"].encode())} if data.get("digest") else {})


def _outcome(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    data, error = entry.data, entry.data.get("error") or {}
    result: dict[str, Any] = {"status": data.get("status", ""), "durationMs": data.get("durationMs", 0)}
    result |= _kept(error, ("class", "reason")) | _kept(data, ("label",))
    if "usage" in data:
        result["usage"] = dict(data["usage"])
    if "result" in data:
        body = canonical_json(data["result"])
        result |= {"bytes": len(body), "digest": keyed.of(body)}
    return {"result": result}


def _approval(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    data = entry.data
    said = _kept(data, ("name", "decision", "by", "reason", "expiresAt"))
    if "spec" in data:
        said |= _kept(data["spec"], ("policy", "rule"))
        said["request"] = keyed.of(canonical_json(data["spec"]))
    return {"approval": said}


def _admin(entry: Entry, keyed: Keyed) -> dict[str, Any]:
    data = entry.data
    said = _kept(data, _ADMIN)
    for key in ("input", "output", "data"):
        if data.get(key) is not None:
            said[key] = keyed.of(canonical_json(data[key]))
    return {"admin": said}


def _kept(data: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: data[key] for key in keys if key in data}


_MORE: Mapping[AuditType, Callable[[Entry, Keyed], dict[str, Any]]] = {
    AuditType.INTENT: _intent,
    AuditType.OUTCOME: _outcome,
    AuditType.DENY: _deny,
    AuditType.APPROVAL: _approval,
    AuditType.ADMIN: _admin,
}
