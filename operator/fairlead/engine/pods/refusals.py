"""What is refused to whoever speaks as a step's pod: counted, logged, and in the audit of the run whose pod it is.

Nobody makes the store grow by asking: of one pod and one cause there is a record of the first refusal, of the tenth, of
the hundredth and so on, and each says how many there were. Who proves nothing belongs to no run, and has no record.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from fairlead.api.reasons import Stage
from fairlead.engine.store.rows import PodRow
from fairlead.errors import FairleadError, StoreError
from fairlead.flow.journal import Draft, EntryKind, RunUid

if TYPE_CHECKING:
    import prometheus_client

REMEMBERED = 10_000
"""So many pods are remembered when they are not under way any more; the engine cannot tell whose an older one is."""

LOG_SECONDS = 60.0
"""Refusals of one kind are logged once in this time, with how many there were."""

_log = logging.getLogger(__name__)


class Refusals:
    """Remembers whose pods were, and takes note of what they are refused."""

    def __init__(
        self,
        counter: prometheus_client.Counter | None = None,
        *,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the metric, and a monotonic clock in seconds."""
        self._counter = counter
        self._remembered = remembered
        self._clock = clock
        self._record: Callable[[RunUid, Draft], None] = lambda run_uid, draft: None
        self._pods: OrderedDict[str, tuple[PodRow, Counter[str]]] = OrderedDict()
        self._logged: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def attach(self, record: Callable[[RunUid, Draft], None], started: Iterable[PodRow] = ()) -> None:
        """Take who records, and the pods that an earlier process has started, newest first."""
        self._record = record
        for pod in started:
            if pod.uid not in self._pods:
                self._pods[pod.uid] = (pod, Counter())
                self._pods.move_to_end(pod.uid, last=False)
        self._forget_old()

    def remember(self, pod: PodRow) -> None:
        """Take note of a pod that may speak from now on."""
        known = self._pods.pop(pod.uid, None)
        self._pods[pod.uid] = known or (pod, Counter())
        self._forget_old()

    def unauthenticated(self, why: str) -> None:
        """Take note of a request of nobody."""
        self._count("Unauthenticated", why)

    def refused(self, uid: str, error: FairleadError, *, user: str, address: str) -> None:
        """Take note of a request of a pod that is not that of an attempt that is under way.

        Args:
            uid: the pod's, as its token says.
            error: why; its words are constant.
            user: whom the token speaks for.
            address: where the request came from.
        """
        why = str(error)
        self._count(error.reason, why, pod=uid)
        if uid not in self._pods:
            return
        pod, counts = self._pods[uid]
        counts[why] += 1
        if not _is_told(counts[why]):
            return
        data = {"reason": error.reason, "stage": int(Stage.FENCE), "message": why, "times": counts[why]}
        data |= {"pod": uid, "user": user, "address": address}
        with contextlib.suppress(StoreError):  # the process ends; the request is refused all the same
            self._record(pod.run_uid, Draft(EntryKind.CALL_DENIED, pod.path, pod.attempt, data))

    def _count(self, reason: str, why: str, **more: str) -> None:
        if self._counter is not None:
            self._counter.labels(reason).inc()
        self._unsaid[reason] += 1
        now = self._clock()
        if now - self._logged.get(reason, float("-inf")) >= LOG_SECONDS:
            self._logged[reason] = now
            extra = {"reason": reason, "why": why, "times": self._unsaid.pop(reason), **more}
            _log.info("a container was refused", extra=extra)

    def _forget_old(self) -> None:
        while len(self._pods) > self._remembered:
            self._pods.popitem(last=False)


def _is_told(times: int) -> bool:
    """Tell whether this is the first, the tenth, the hundredth and so on."""
    return str(times).rstrip("0") == "1"
