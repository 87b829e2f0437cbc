"""`GuardrailsInstalled`: does the cluster refuse what its admission policies forbid? Tried, not looked up.

An approval counts only where a forged decision is refused; the engine sees that for each one (approvals.py). This is
the same test once a minute, for people: so that they know before a run waits in vain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fairlead.api.conditions import only_condition, timestamp
from fairlead.api.reasons import GuardrailsReason
from fairlead.engine.approvals import UNGUARDED
from fairlead.engine.owned import owned
from fairlead.engine.seams import ApprovalDesk
from fairlead.engine.status import StatusWriter
from fairlead.errors import KubeError

PROBE_SECONDS = 60.0
RETRY_SECONDS = 5.0
_RUN = {"name": "probe", "uid": "00000000-0000-4000-8000-000000000000"}
_PROBE = {
    "run": _RUN,
    "workflow": "probe",
    "serviceAccountName": "fairlead-none",
    "step": "probe",
    "attempt": 1,
    "index": "",
    "message": "is a forged decision refused?",
    "digest": "sha256:" + "0" * 64,
    "from": {"users": ["nobody"]},
    "minApprovals": 1,
    "requester": "Excluded",
    "expiresAt": "2000-01-01T00:00:00Z",
}

_log = logging.getLogger(__name__)


class EngineObject(Protocol):
    """The namespace's Engine as last seen."""

    engine_uid: str
    engine_object: Mapping[str, Any]


class Guardrails:
    """Tries once a minute, and writes the condition of the Engine."""

    def __init__(
        self,
        engine: EngineObject,
        desk: ApprovalDesk,
        statuses: StatusWriter,
        *,
        owner: str,
        clock: Callable[[], int],
    ) -> None:
        """Take the Engine, where a forged decision is tried, and who writes.

        `owner` is the pod that this process is: with the condition it says which one serves. `clock` gives Unix ms.
        """
        self._owner = owner
        self._engine = engine
        self._desk = desk
        self._statuses = statuses
        self._clock = clock

    async def run(self) -> None:
        """Try until cancelled."""
        while True:
            await asyncio.sleep(PROBE_SECONDS if await self.look() else RETRY_SECONDS)

    async def look(self) -> bool:
        """Try once; return whether all is well."""
        try:
            refused = await self._desk.refuses_forgery(owned("probe", _PROBE, run=_RUN))
        except KubeError as error:
            _log.warning("the guardrails are not tried yet: %s", error)
            return False
        if self._engine.engine_uid:
            self._say(refused)
        return refused and bool(self._engine.engine_uid)

    def _say(self, refused: bool) -> None:
        reason = GuardrailsReason.VERIFIED if refused else GuardrailsReason.NOT_INSTALLED
        message = "forged decisions are refused" if refused else f"no approval counts: {UNGUARDED}"
        obj = self._engine.engine_object
        published = [c for c in (obj.get("status") or {}).get("conditions", ()) if c["type"] == "GuardrailsInstalled"]

        def compose(previous: Mapping[str, Any]) -> dict[str, Any]:
            conditions = only_condition(
                previous,
                "GuardrailsInstalled",
                refused,
                reason=reason.value,
                message=message,
                now=timestamp(self._clock()),
                observed_generation=obj["metadata"].get("generation", 0),
            )
            return {"conditions": conditions, "owner": self._owner}

        self._statuses.mark(self._engine.engine_uid, "default", compose, published={"conditions": published})
