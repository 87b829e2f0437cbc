"""Who is next when the places are taken: round robin over Workflows, first come first served within each."""

from __future__ import annotations

from collections import OrderedDict, deque

from fairlead.flow.journal import RunUid


class FairQueue:
    """Accepted runs that wait for a place. A Workflow with a thousand runs delays another's first by one."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[RunUid]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def push(self, workflow: str, uid: RunUid) -> None:
        """Let a run wait in its Workflow's lane."""
        self._lanes.setdefault(workflow, deque()).append(uid)

    def pop(self) -> RunUid | None:
        """Return whose turn it is, None when nobody waits; the Workflow goes to the end of the line."""
        if not self._lanes:
            return None
        workflow, lane = self._lanes.popitem(last=False)
        uid = lane.popleft()
        if lane:
            self._lanes[workflow] = lane
        return uid

    def remove(self, workflow: str, uid: RunUid) -> None:
        """Take a run out of the line, if it stands there."""
        lane = self._lanes.get(workflow)
        if lane is not None and uid in lane:
            lane.remove(uid)
            if not lane:
                del self._lanes[workflow]
