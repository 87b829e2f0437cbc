"""Evaluates what a step says at its place in the run: the state, a frame and the expressions brought together."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import OutputRule
from fairlead.flow.expressions import evaluate_bool
from fairlead.flow.scope import Frame, Reads, Scope, scope_of
from fairlead.flow.state import RunState
from fairlead.flow.template import Room, render, render_text


class PlaceEvaluator:
    """Evaluates at one place: all that it makes together has the bound of a value. All of it raises ExpressionError.

    `reads` has the label of all that it read. `at` is the field of the step where something stands, for errors.
    """

    def __init__(self, state: RunState, frame: Frame, **more: Any) -> None:
        self.reads = Reads()
        self._state = state
        self._frame = frame
        self._more = more
        self._room = Room()

    def render(self, value: Any, at: str, /, **more: Any) -> Any:
        """Return a JSON value with its `$( )` segments evaluated; None stays None. `more` is in scope too."""
        return render(value, self._scope(**more), at, self._room)

    def text(self, template: str, at: str) -> str:
        """Return a text with its `$( )` segments filled in."""
        return render_text(template, self._scope(), at, self._room)

    def holds(self, expression: str, at: str) -> bool:
        """Return whether a bare expression is true."""
        return evaluate_bool(expression, self._scope(), at)

    def broken_rules(self, rules: list[OutputRule], output: Any) -> list[str]:
        """Return the messages of the rules that do not hold for this output."""
        scope = self._scope(output=output)
        numbered = enumerate(rules)
        return [rule.message for nth, rule in numbered if not evaluate_bool(rule.expression, scope, f"rules[{nth}]")]

    def _scope(self, **more: Any) -> Scope:
        return scope_of(self._state, self._frame, self.reads, self._more | more)
