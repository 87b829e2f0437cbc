"""`GuardrailsInstalled`: does the cluster refuse what its admission policies forbid? Tried, not looked up.

An approval counts only where a forged decision is refused; the engine sees that for each one (approvals.py). This is
the same test once a minute, for people: so that they know before a run waits in vain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fairlead.engine.owned import owned
from fairlead.engine.seams import ApprovalDesk
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


class Guardrails:
    """Tries once a minute, and has it said on the Engine."""

    def __init__(self, desk: ApprovalDesk, say: Callable[[bool], bool]) -> None:
        """Take where a forged decision is tried; `say` tells the Engine whether it is refused, once there is one."""
        self._desk = desk
        self._say = say

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
        return self._say(refused) and refused
