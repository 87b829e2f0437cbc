"""`Reachable` and `Pinned`: does a Tool's or Model's server answer, and are its functions what was reviewed.

Early news for people: nothing waits for it and no decision looks at it. A server is asked when its object changes and
once a minute, each by a task of its own, so that one that hangs delays nobody. One that the rules of a Policy keep from
every run is not asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fairlead.api.conditions import set_condition, timestamp
from fairlead.api.meta import Condition
from fairlead.api.model import Model
from fairlead.api.reasons import PinnedReason, ReachableReason
from fairlead.api.tool import Tool
from fairlead.engine.credentials import destination
from fairlead.engine.dialer import Dialer, DialError, Reached, TooLarge
from fairlead.engine.egress import check_rules
from fairlead.engine.seams import Resources
from fairlead.engine.status import StatusWriter
from fairlead.engine.tools import Discovery, ToolCaller
from fairlead.errors import CredentialMissing, CredentialPending, EgressDenied, StepError
from fairlead.policy.pins import drift

INTERVAL_SECONDS = 60.0
RETRY_SECONDS = 5.0
TIMEOUT_SECONDS = 10.0
MAX_BYTES = 1 << 20

_OF_ERROR: Mapping[type[Exception], tuple[bool | None, ReachableReason]] = {
    CredentialPending: (None, ReachableReason.CREDENTIAL_PENDING),
    CredentialMissing: (False, ReachableReason.CREDENTIAL_MISSING),
    EgressDenied: (False, ReachableReason.EGRESS_DENIED),
}


_CONDITIONS = ("Reachable", "Pinned")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of asking: the condition's status, reason and message, and what an MCP server said."""

    status: bool | None
    reason: ReachableReason
    message: str = ""
    discovery: Discovery | None = None


class Reachability:
    """Asks the servers of all Tools and Models and writes what it found."""

    def __init__(
        self,
        resources: Resources,
        *,
        tools: ToolCaller,
        dialer: Dialer,
        tool_statuses: StatusWriter,
        model_statuses: StatusWriter,
        clock: Callable[[], int],
    ) -> None:
        """Take who asks, and who writes; `clock` gives Unix ms."""
        self._resources = resources
        self._tools = tools
        self._dialer = dialer
        self._writers = {"Tool": tool_statuses, "Model": model_statuses}
        self._clock = clock
        self._changed: dict[tuple[str, str], asyncio.Event] = {}
        self._new: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def changed(self, kind: str, name: str) -> None:
        """Ask this server now."""
        known = self._changed.get((kind, name))
        if known is not None:
            known.set()
            return
        self._changed[(kind, name)] = asyncio.Event()
        self._new.put_nowait((kind, name))

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                kind, name = await self._new.get()
                group.create_task(self._watch(kind, name))

    async def _watch(self, kind: str, name: str) -> None:
        """Ask one server again and again until its object is gone."""
        changed = self._changed[(kind, name)]
        while (target := self._target(kind, name)) is not None:
            changed.clear()
            found = await self._ask(target)
            self._say(kind, name, target, found)
            try:
                async with asyncio.timeout(INTERVAL_SECONDS if found.status else RETRY_SECONDS):
                    await changed.wait()
            except TimeoutError:
                continue
        del self._changed[(kind, name)]

    def _target(self, kind: str, name: str) -> Tool | Model | None:
        return (self._resources.tools if kind == "Tool" else self._resources.models).get(name)

    async def _ask(self, target: Tool | Model) -> Finding:
        try:
            if isinstance(target, Tool):
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    discovery = await self._tools.discover(target.metadata.name, target)
                missing = {f.name for f in target.spec.functions} - discovery.digests.keys()
                note = f"the server does not list {', '.join(sorted(missing))}" if missing else ""
                return Finding(True, ReachableReason.ANSWERED, note, discovery)
            await self._models_endpoint(target)
            return Finding(True, ReachableReason.ANSWERED)
        except (CredentialPending, CredentialMissing, EgressDenied) as error:
            return Finding(*_OF_ERROR[type(error)], str(error))
        except (StepError, DialError, TooLarge) as error:
            return Finding(False, ReachableReason.NO_ANSWER, str(error))
        except TimeoutError:
            return Finding(False, ReachableReason.NO_ANSWER, "no answer in time")
        except Exception:  # the boundary around one object: the others are asked whatever is wrong with this one
            _log.exception("%s %s cannot be asked", type(target).__name__, target.metadata.name)
            return Finding(False, ReachableReason.NO_ANSWER, "it cannot be asked; see the engine's log")

    async def _models_endpoint(self, model: Model) -> None:
        """Ask for `/models`. Any answer but a server error will do: not every server has it."""
        check_rules(self._resources, model)
        to = destination(self._resources, model)
        url = to.url.with_path(to.url.path.rstrip("/") + "/models")
        async with self._dialer.exchange(
            "GET", url, private=to.private, headers=to.headers, timeout_seconds=TIMEOUT_SECONDS
        ) as answer:
            await answer.read(MAX_BYTES)
            if answer.status >= 500:
                raise DialError(f"the server answered {answer.status}", reached=Reached.ANSWERED)

    def _say(self, kind: str, name: str, target: Tool | Model, found: Finding) -> None:
        published = target.status.model_dump(by_alias=True, exclude_none=True) if target.status else {}
        ours: dict[str, Any] = {key: published[key] for key in ("protocolVersion", "functions") if key in published}
        ours["conditions"] = [c for c in published.get("conditions", ()) if c["type"] in _CONDITIONS]

        def compose(previous: Mapping[str, Any]) -> dict[str, Any]:
            return server_status(target, found, previous=previous, now=timestamp(self._clock()))

        self._writers[kind].mark(target.metadata.uid, name, compose, published=ours)


def server_status(target: Tool | Model, found: Finding, *, previous: Mapping[str, Any], now: str) -> dict[str, Any]:
    """Return all fields of a Tool's or Model's status that the engine owns.

    Args:
        target: the object as it was asked about.
        found: what came of it.
        previous: the engine's part as it stands; the transition time is kept from it.
        now: RFC 3339.
    """
    before = [Condition.model_validate(c) for c in previous.get("conditions", ())]
    conditions = set_condition(
        before,
        "Reachable",
        found.status,
        reason=found.reason.value,
        message=found.message,
        now=now,
        observed_generation=target.metadata.generation,
    )
    if isinstance(target, Tool):
        pinned, reason, message = pinned_state(target, found.discovery)
        conditions = set_condition(
            conditions,
            "Pinned",
            pinned,
            reason=reason.value,
            message=message,
            now=now,
            observed_generation=target.metadata.generation,
        )
    status: dict[str, Any] = {"conditions": [c.model_dump(by_alias=True, exclude_none=True) for c in conditions]}
    if isinstance(target, Tool) and found.discovery is not None:
        listed = {function.name for function in target.spec.functions}
        status["protocolVersion"] = found.discovery.protocol_version
        status["functions"] = [
            {"name": name[:128], "contract": "Listed" if name in listed else "Unlisted"}
            | ({"digest": digest} if digest else {})
            for name, digest in sorted(found.discovery.digests.items())[:200]
        ]
    return status


def pinned_state(tool: Tool, discovery: Discovery | None) -> tuple[bool | None, PinnedReason, str]:
    """Return the status, reason and message of `Pinned`: is every function of the contract as somebody reviewed it."""
    functions = tool.spec.functions
    unpinned = ", ".join(function.name for function in functions if function.pin is None)
    if discovery is None and any(function.pin is not None for function in functions):
        return None, PinnedReason.DEFINITION_UNKNOWN, "the server does not say how its functions are defined"
    digests = discovery.digests if discovery is not None else {}
    drifted = [found for function in functions if (found := drift(function, digests))]
    if drifted:
        return False, PinnedReason.DRIFT, "; ".join(drifted)
    if unpinned:
        return False, PinnedReason.UNPINNED, f"without a pin: {unpinned}"
    return True, PinnedReason.PINNED, ""
