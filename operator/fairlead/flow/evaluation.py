"""Evaluates what a step says at its place in the run: the state, a frame and the expressions brought together."""

from __future__ import annotations

from typing import Any

from fairlead.api.workflow import OutputRule
from fairlead.flow.expressions import evaluate_bool, read
from fairlead.flow.scope import Frame, Reads, Scope, scope_of
from fairlead.flow.state import RunState
from fairlead.flow.template import render, render_text, whole_segment


class PlaceEvaluator:
    """Evaluates at one place. All of it raises ExpressionError. `reads` has the label of all that it read."""

    def __init__(self, state: RunState, frame: Frame, **more: Any) -> None:
        self.reads = Reads()
        self._state = state
        self._frame = frame
        self._more = more

    def render(self, value: Any, **more: Any) -> Any:
        """Return a JSON value with its `$( )` segments evaluated; None stays None. `more` is in scope too."""
        return render(value, self._scope(**more))

    def named(self, value: Any) -> Any:
        """Return the same as `render`; a value that is one segment and only names something may have any size."""
        expression = whole_segment(value)
        return self.render(value) if expression is None else read(expression, self._scope())

    def text(self, template: str) -> str:
        """Return a text with its `$( )` segments filled in."""
        return render_text(template, self._scope())

    def holds(self, expression: str) -> bool:
        """Return whether a bare expression is true."""
        return evaluate_bool(expression, self._scope())

    def broken_rules(self, rules: list[OutputRule], output: Any) -> list[str]:
        """Return the messages of the rules that do not hold for this output."""
        scope = self._scope(output=output)
        return [rule.message for rule in rules if not evaluate_bool(rule.expression, scope)]

    def _scope(self, **more: Any) -> Scope:
        return scope_of(self._state, self._frame, self.reads, self._more | more)
