"""Runs a container call: makes its pod, or finds the one that an earlier process made; watches it; reads what it left.

The name says which call a pod answers, its annotation which request, and its UID - once it is in the journal - which
pod it is. Whatever has the name and is not that pod is refused: nothing that it says counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from fairlead.api.canonical import strict_json
from fairlead.api.reasons import ErrorClass, RunReason
from fairlead.engine.outcomes import failed
from fairlead.engine.pods.build import CALL, OUTPUT, STEP, Beside, Owner, build, may_call, pod_name, too_large
from fairlead.engine.pods.calling import CallingPod, CallingPods
from fairlead.engine.pods.reading import Waits, ended, failure, lost, succeeded, waits
from fairlead.engine.pods.startup import Startup
from fairlead.engine.wellformed import problem
from fairlead.errors import Conflict, KubeError, NotFound, Unreachable
from fairlead.flow.calls import Call, CallError, Outcome
from fairlead.kube.client import Kube
from fairlead.kube.types import PODS
from fairlead.stepfiles import MOST_OUTPUT, NothingSaid, read_back

if TYPE_CHECKING:
    from fairlead.engine.log import RunLog

LOG_BYTES = 65_536
"""So much of the end of a step's log is kept."""
_LINES = 2000
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 2.0
_QUOTA_PAUSE_SECONDS = 5.0
_TRIES = 5
_QUOTA = "exceeded quota"

Pod = Mapping[str, Any]

_log = logging.getLogger(__name__)


class PodRunner:
    """Step pods of one namespace."""

    def __init__(
        self,
        kube: Kube,
        beside: Callable[[bool], Awaitable[Beside]],
        calling: CallingPods | None = None,
        *,
        clock: Callable[[], int],
    ) -> None:
        """Take the client, what stands beside steps now (beside one that may call, or not), and who may call.

        `clock` gives Unix ms as the API server counts them, who tells when pods were made.
        """
        self._kube = kube
        self._beside = beside
        self._calling = calling or CallingPods()
        self._clock = clock
        self._forgetting: set[asyncio.Task[None]] = set()

    async def run(
        self, log: RunLog, call: Call, known: str, started: Callable[[str, str], None], *, seconds: float
    ) -> Outcome | None:
        """Return what came of a container call; None when the engine is about to end: the next goes on with the pod.

        Why it has not begun yet is told to the run, as long as it has not.

        Args:
            log: the run.
            call: a call of kind Container.
            known: the UID of its pod as the journal has it; "" if it has none.
            started: told the name and UID of the pod, once.
            seconds: how long it may take.
        """
        if large := too_large(call):
            return failed(ErrorClass.INVALID, large, reason="InputTooLarge")
        startup = Startup(self._clock, seconds=seconds, tell=partial(log.tell, call.id.path))
        try:
            return await self._run(log, call, known, started, startup, seconds=seconds)
        finally:
            log.tell(call.id.path, "")

    async def _run(
        self,
        log: RunLog,
        call: Call,
        known: str,
        started: Callable[[str, str], None],
        startup: Startup,
        *,
        seconds: float,
    ) -> Outcome | None:
        began = time.perf_counter()
        try:
            pod = await self._pod(log, call, known, began + seconds, startup)
        except (Conflict, NotFound) as error:
            reason = RunReason.CHILD_NAME_CONFLICT.value if isinstance(error, Conflict) else "PodLost"
            error_class = ErrorClass.INVALID if isinstance(error, Conflict) else ErrorClass.UNAVAILABLE
            return failed(error_class, error.message, reason=reason, started=began)
        except KubeError as error:
            return _refused(error)
        if pod is None:
            return None
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if not known:
            started(name, uid)
        try:
            if may_call(call):
                look = partial(self._kube.get, PODS, name, log.namespace)
                async with self._calling.under_way(log, call, pod, look) as calling:
                    outcome = await self._follow(log, name, uid, startup, calling)
            else:
                outcome = await self._follow(log, name, uid, startup)
        except asyncio.CancelledError:
            if not log.draining:
                await asyncio.shield(self.delete(log, call, uid))
            raise
        return replace(outcome, duration_ms=int((time.perf_counter() - began) * 1000)) if outcome is not None else None

    def forget(self, log: RunLog, call: Call, uid: str) -> None:
        """Delete the pod of a call once what came of it is durable; nobody waits for that, the run may be over."""

        async def later() -> None:
            await log.durable()
            await self.delete(log, call, uid)

        task = asyncio.create_task(later())
        self._forgetting.add(task)
        task.add_done_callback(self._forgotten)

    def _forgotten(self, task: asyncio.Task[None]) -> None:
        self._forgetting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("the pod of a step is left: %s", error)

    async def delete(self, log: RunLog, call: Call, uid: str) -> None:
        """Delete the pod of a call; fine if it is gone. What cannot be deleted now goes with its run."""
        if uid:
            with contextlib.suppress(KubeError):
                await self._kube.delete(PODS, pod_name(log.uid, call), log.namespace, uid=uid)

    async def _pod(self, log: RunLog, call: Call, known: str, ends: float, startup: Startup) -> Pod | None:
        """Make the pod, or find it, also the one of a request whose answer was lost; None when the engine is to end.

        Where a quota has no room it is asked again, until others have ended or it took too long.

        Raises:
            NotFound: it was made, and is gone.
            Conflict: something else has its name.
            KubeError: the API server does not take it, or was away until the end.
        """
        pause = _FIRST_PAUSE_SECONDS
        while not log.draining:
            left = ends - time.perf_counter()
            try:
                return await self._made(log, call, known, max(1, int(left)))
            except Unreachable as error:
                if left <= 0:
                    raise
                await asyncio.sleep(min(error.retry_after_seconds or pause, left))
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            except KubeError as error:
                if _QUOTA not in error.message or startup.over(_no_room(error)) is not None:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _QUOTA_PAUSE_SECONDS)
        return None

    async def _made(self, log: RunLog, call: Call, known: str, seconds: int) -> Pod:
        name = pod_name(log.uid, call)
        if known:
            found = await self._kube.get(PODS, name, log.namespace)
            if found["metadata"]["uid"] != known:
                raise Conflict(409, f"pod {name} is another one than was started")
            return found
        owner = Owner(log.name, log.uid, log.namespace, log.account, seconds)
        try:
            pod = build(call, owner, await self._beside(may_call(call)))
            return await self._kube.once_ready(partial(self._kube.create, PODS, pod, log.namespace))
        except Conflict:
            found = await self._kube.get(PODS, name, log.namespace)
        owners = [one.get("uid") for one in found["metadata"].get("ownerReferences") or ()]
        mine = (found["metadata"].get("annotations") or {}).get(CALL) == call.digest and owners == [log.uid]
        if not mine:
            raise Conflict(409, f"pod {name} exists and was not made for this call")
        return found

    async def _follow(
        self, log: RunLog, name: str, uid: str, startup: Startup, calling: CallingPod | None = None
    ) -> Outcome | None:
        pause, failures = _FIRST_PAUSE_SECONDS, 0
        while not log.draining:
            try:
                pod = await self._kube.get(PODS, name, log.namespace)
                failures = 0
            except NotFound:
                return failed(ErrorClass.UNAVAILABLE, f"pod {name} was deleted", reason="PodLost")
            except KubeError:  # the API server is away: the pod goes on, and so does the waiting for it
                failures += 1
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
                continue
            if pod["metadata"]["uid"] != uid:
                return failed(ErrorClass.UNAVAILABLE, f"pod {name} was replaced", reason="PodLost")
            if calling is not None:
                calling.pod = pod
            now = datetime.fromtimestamp(self._clock() / 1000, UTC)
            error = failure(pod, now) or startup.over(waits(pod))
            if error is not None and lost(pod, now):
                return Outcome(error=error)  # nobody can be asked for its log
            if error is not None or ended(pod):
                outcome = await self._read(log.namespace, name, whole=succeeded(pod) and error is None)
                return replace(outcome, error=error) if error is not None else outcome
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE_SECONDS)
        return None

    async def _read(self, namespace: str, name: str, *, whole: bool) -> Outcome:
        """Return what the pod left: its output if it ended well, and the end of its log."""
        logs = (await self._log(namespace, name, STEP, tail=_LINES))[-LOG_BYTES:]
        if not whole:
            return Outcome(result={"logs": logs})
        try:
            content, refused = read_back(await self._log(namespace, name, OUTPUT, most=2 * MOST_OUTPUT))
        except NothingSaid:
            lost = failed(ErrorClass.UNAVAILABLE, "the pod ended without a word of its output", reason="OutputLost")
            return replace(lost, result={"logs": logs})
        if not refused and content is not None:
            try:
                value = strict_json(content)
                refused = problem({"output": value})
                if not refused:
                    return Outcome(result={"output": value, "logs": logs})
            except ValueError as error:
                refused = f"output.json is not JSON: {error}"
        if refused:
            return replace(failed(ErrorClass.INVALID, refused, reason="BadOutput"), result={"logs": logs})
        return Outcome(result={"output": None, "logs": logs})

    async def _log(self, namespace: str, name: str, container: str, *, tail: int = 0, most: int = 0) -> str:
        query = {"container": container} | ({"tailLines": str(tail)} if tail else {})
        query |= {"limitBytes": str(most)} if most else {}
        headers = {"Accept": "*/*"}
        for attempt in range(_TRIES):
            try:
                answer = await self._kube.request(
                    "GET", PODS.path(namespace, name, "log"), query=query, headers=headers
                )
                return answer if isinstance(answer, str) else orjson.dumps(answer).decode()
            except KubeError as error:
                if not error.retryable:
                    return ""  # a container that never began has no log
                await asyncio.sleep(attempt + 1)
        return ""


def _no_room(error: KubeError) -> Waits:
    return Waits(("", "QuotaExceeded"), CallError(ErrorClass.UNAVAILABLE.value, "QuotaExceeded", error.message))


def _refused(error: KubeError) -> Outcome:
    """Return why the API server does not take a pod: quota passes, what admission forbids does not."""
    if _QUOTA in error.message:
        return Outcome(error=_no_room(error).error)
    if "violates PodSecurity" in error.message:
        return failed(ErrorClass.INVALID, error.message, reason="PodSecurity")
    return failed(ErrorClass.UNAVAILABLE if error.retryable else ErrorClass.INVALID, error.message, reason="PodRefused")
