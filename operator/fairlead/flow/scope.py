"""What expressions see: the run's input, the steps that are visible from where they stand, and the loop around them.

A `Frame` is a place in the plan at run time: which list of steps, under which path, called from where. Blocks are
flat in the definition and nested when they run, so visibility follows the frames, not the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from fairlead.flow.calls import CallError
from fairlead.flow.journal import Path
from fairlead.flow.labelling import of_end
from fairlead.flow.labels import TRUSTED, Label
from fairlead.flow.paths import FINALLY
from fairlead.flow.plan import Body
from fairlead.flow.state import RunState, StepState


@dataclass(frozen=True, slots=True)
class Frame:
    """One run of a list of steps.

    Attributes:
        body: the steps.
        prefix: what their paths begin with: `` for the Workflow's own list, `topic/`, `draft#2/`, `reply!/`, `!/`.
        caller: the frame of the step that runs this body; None for the Workflow's own.
        adds: the names that exist from here on: those of a loop, or `error` in an onError, onFailure or finally block.
    """

    body: Body
    prefix: str = ""
    caller: Frame | None = None
    adds: Mapping[str, Any] = field(default_factory=dict)

    def path(self, name: str, iteration: int = 0) -> Path:
        """Return the path of a step of this body, or of one of its iterations."""
        return Path(f"{self.prefix}{name}#{iteration}" if iteration else f"{self.prefix}{name}")

    def looped(self, adds: Mapping[str, Any]) -> Frame:
        """Return the same place within an iteration or an item, with the names that it has there."""
        return replace(self, adds={**self.adds, **adds})

    def enter(self, body: Body, path: Path, *, error: CallError | None = None) -> Frame:
        """Return the place of the steps of a block that the step at `path` runs."""
        return Frame(body, f"{path}/", self, {"error": error.as_data()} if error else {})

    def handle(self, body: Body, path: Path, error: CallError) -> Frame:
        """Return the place of the steps of the onError block of the step at `path`."""
        return Frame(body, f"{path}!/", self, {"error": error.as_data()})

    def finish(self, body: Body, error: CallError | None) -> Frame:
        """Return the place of the steps of the Workflow's `finally` block."""
        return Frame(body, FINALLY, self, {"error": error.as_data() if error else None})

    def outward(self) -> Iterator[Frame]:
        """Go from here to the Workflow's own list."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.caller


class Reads:
    """The label of everything that was read."""

    def __init__(self) -> None:
        self.label = TRUSTED

    def note(self, label: Label) -> None:
        """Take note of what is read."""
        self.label = self.label.join(label)


class VisibleSteps(Mapping[str, Any]):
    """The `steps` of the scope. Each is looked up when an expression reads it, in the nearest list that has it."""

    def __init__(self, state: RunState, frame: Frame, reads: Reads) -> None:
        self._state = state
        self._frame = frame
        self._reads = reads

    def __getitem__(self, name: str) -> dict[str, Any]:
        for place in self._frame.outward():
            if name in place.body.steps:
                step = self._state.steps.get(place.path(name))
                if step is not None and step.finished_at is not None:  # else there is only null: visibility.py
                    self._reads.note(step.label)
                return _view(step)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter({name: None for place in self._frame.outward() for name in place.body.steps})

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Scope(Mapping[str, Any]):
    """What expressions see from a place; reading what has a label of its own is noted, reading `steps` too."""

    def __init__(self, values: Mapping[str, Any], labels: Mapping[str, Label], reads: Reads) -> None:
        self._values = values
        self._labels = labels
        self._reads = reads

    def __getitem__(self, name: str) -> Any:
        if name in self._labels:
            self._reads.note(self._labels[name])
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def scope_of(state: RunState, frame: Frame, reads: Reads, more: Mapping[str, Any] | None = None) -> Scope:
    """Return what expressions see from a place. The names of loops and `error` are there only where they exist.

    These names have no label of their own: a step has the label of what holds it anyway (labels.py). Nothing holds
    those of `finally`, which run whatever happened; but `error` tells them of it.
    """
    accepted = state.accepted
    if accepted is None:
        return Scope({}, {}, reads)
    scope: dict[str, Any] = {
        "input": accepted.input,
        "steps": VisibleSteps(state, frame, reads),
        "run": {
            "name": accepted.name,
            "uid": state.run_uid,
            "createdAt": _rfc3339(accepted.created_at),
            "scheduledAt": _rfc3339(accepted.scheduled_at) if accepted.scheduled_at is not None else None,
        },
        "workflow": {"name": accepted.workflow},
    }
    for place in reversed([*frame.outward()]):
        scope |= place.adds
    labels = {"input": accepted.label or TRUSTED}
    teller = next((place for place in frame.outward() if "error" in place.adds), None)
    if teller is not None and teller.prefix == FINALLY:
        labels["error"] = of_end(state)
    return Scope(scope | dict(more or {}), labels, reads)


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


@lru_cache(maxsize=4096)
def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
