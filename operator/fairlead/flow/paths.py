"""What a path says: in which list a step stands, what holds it, which turn it is. `journal.py` spells paths."""

from __future__ import annotations

from fairlead.flow.journal import Path

FINALLY = "!/"
"""What the paths of the steps of the Workflow's `finally` block begin with."""


def place_of(path: Path) -> tuple[str, str, int]:
    """Return where a path stands: its body's prefix, its step's name, its iteration (0: the step itself).

    An item's body is its forEach: `summaries[3]` is `3]` in `summaries[`.
    """
    cut = max(path.rfind("/"), path.rfind("[")) + 1
    name, _, iteration = path[cut:].partition("#")
    return path[:cut], name, int(iteration or 0)


def holder_of(path: Path) -> Path:
    """Return the step that holds what stands at a path; the empty path of a step of the Workflow's own list."""
    prefix, name, iteration = place_of(path)
    return Path(prefix + name if iteration else prefix.rstrip("/[").removesuffix("!"))


def is_turn(path: Path) -> bool:
    """Tell whether a path is that of an iteration or an item, not of the step that holds it."""
    last = path[path.rfind("/") + 1 :]
    return "#" in last or "[" in last
