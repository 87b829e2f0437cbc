"""Who is next when not all can start: round robin over Workflows, then over keys, first come first served within."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable

from fairlead.flow.journal import RunUid

MayStart = Callable[[str, str], bool]
"""Whether a run of this Workflow with this concurrency key could start now, had it a place."""

HasPlace = Callable[[str], bool]
"""Whether there is a place for a run of this Workflow."""


class FairQueue:
    """Accepted runs that wait. A Workflow, or a key, with a thousand runs delays another's first by one."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, OrderedDict[str, deque[RunUid]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(lane) for lanes in self._lanes.values() for lane in lanes.values())

    def push(self, workflow: str, uid: RunUid, key: str = "") -> None:
        """Let a run wait in the lane of its Workflow and key."""
        self._lanes.setdefault(workflow, OrderedDict()).setdefault(key, deque()).append(uid)

    def pop(
        self, may_start: MayStart = lambda workflow, key: True, has_place: HasPlace = lambda workflow: True
    ) -> RunUid | None:
        """Return whose turn it is, None when nobody who waits may start; Workflow and key go to the end of the line."""
        found = self._first(may_start, has_place)
        if found is None:
            return None
        workflow, key = found
        lanes = self._lanes.pop(workflow)
        lane = lanes.pop(key)
        uid = lane.popleft()
        if lane:
            lanes[key] = lane
        if lanes:
            self._lanes[workflow] = lanes
        return uid

    def ready(self, may_start: MayStart, has_place: HasPlace = lambda workflow: True) -> bool:
        """Tell whether somebody waits who may start."""
        return self._first(may_start, has_place) is not None

    def remove(self, workflow: str, uid: RunUid, key: str = "") -> None:
        """Take a run out of the line, if it stands there."""
        lanes = self._lanes.get(workflow, OrderedDict())
        lane = lanes.get(key)
        if lane is not None and uid in lane:
            lane.remove(uid)
            if not lane:
                del lanes[key]
            if not lanes:
                del self._lanes[workflow]

    def _first(self, may_start: MayStart, has_place: HasPlace) -> tuple[str, str] | None:
        every = ((workflow, key) for workflow, lanes in self._lanes.items() if has_place(workflow) for key in lanes)
        return next((lane for lane in every if may_start(*lane)), None)
