"""What expressions see: the run's input, the steps that are visible from where they stand, and the loop around them.

A `Frame` is a place in the plan at run time: which list of steps, under which path, called from where. Blocks are
flat in the definition and nested when they run, so visibility follows the frames, not the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from fairlead.flow.calls import CallError
from fairlead.flow.journal import Path
from fairlead.flow.plan import Body
from fairlead.flow.state import RunState, StepState

FINALLY = "!/"
"""What the paths of the steps of the Workflow's `finally` block begin with."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One run of a list of steps.

    Attributes:
        body: the steps.
        prefix: what their paths begin with: `` for the Workflow's own list, `topic/`, `draft#2/`, `reply!/`, `!/`.
        caller: the frame of the step that runs this body; None for the Workflow's own.
        iteration: the number of the repeat's iteration that began here, 0 for none.
        previous: the output of the iteration before.
        error: what the steps of an onError, onFailure or finally block see.
    """

    body: Body
    prefix: str = ""
    caller: Frame | None = None
    iteration: int = 0
    previous: Any = None
    error: CallError | None = None

    def path(self, name: str, iteration: int = 0) -> Path:
        """Return the path of a step of this body, or of one of its iterations."""
        return Path(f"{self.prefix}{name}#{iteration}" if iteration else f"{self.prefix}{name}")

    def looped(self, iteration: int, previous: Any) -> Frame:
        """Return the same place within an iteration."""
        return replace(self, iteration=iteration, previous=previous)

    def enter(self, body: Body, path: Path, *, error: CallError | None = None) -> Frame:
        """Return the place of the steps of a block that the step at `path` runs."""
        return Frame(body, f"{path}/", self, error=error)

    def handle(self, body: Body, path: Path, error: CallError) -> Frame:
        """Return the place of the steps of the onError block of the step at `path`."""
        return Frame(body, f"{path}!/", self, error=error)

    def finish(self, body: Body, error: CallError | None) -> Frame:
        """Return the place of the steps of the Workflow's `finally` block."""
        return Frame(body, FINALLY, self, error=error)

    def outward(self) -> Iterator[Frame]:
        """Go from here to the Workflow's own list."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.caller


class VisibleSteps(Mapping[str, Any]):
    """The `steps` of the scope. Each is looked up when an expression reads it, in the nearest list that has it."""

    def __init__(self, state: RunState, frame: Frame) -> None:
        self._state = state
        self._frame = frame

    def __getitem__(self, name: str) -> dict[str, Any]:
        for place in self._frame.outward():
            if name in place.body.steps:
                return _view(self._state.steps.get(place.path(name)))
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({name: None for place in self._frame.outward() for name in place.body.steps})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def scope_of(state: RunState, frame: Frame) -> dict[str, Any]:
    """Return what expressions see from a place. `iteration`, `previous` and `error` are there only where they exist."""
    accepted = state.accepted
    if accepted is None:
        return {}
    scope: dict[str, Any] = {
        "input": accepted.input,
        "steps": VisibleSteps(state, frame),
        "run": {"name": accepted.name, "uid": state.run_uid, "createdAt": _rfc3339(accepted.created_at)},
        "workflow": {"name": accepted.workflow},
    }
    loop = next((place for place in frame.outward() if place.iteration), None)
    if loop is not None:
        scope |= {"iteration": loop.iteration, "previous": loop.previous}
    error = next((place.error for place in frame.outward() if place.error), None)
    if error is not None or any(place.prefix == FINALLY for place in frame.outward()):
        scope["error"] = error.as_data() if error is not None else None
    return scope


def _view(step: StepState | None) -> dict[str, Any]:
    if step is None:
        return {"output": None, "phase": "Pending", "error": None, "attempts": 0}
    error = step.error if step.phase == "Failed" else None
    return {
        "output": step.output,
        "phase": step.phase,
        "error": error.as_data() if error else None,
        "attempts": step.attempt,
    }


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
