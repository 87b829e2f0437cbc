"""Labels: how far a value can be trusted, and how sensitive it is. They follow what was read; nobody sets them. Pure.

A step has three. Its *control* is that of everything that decided that it runs: its `when`, and what holds it - a
loop's items, a route's choice. Its *context* is control, all that its expressions read, and all that its calls
brought. Its *label* is that of its output: the context, but of a call of a Tool what the contract says of its results,
and of a `validate` that lets no text through (textfree.py) one that is trusted again.
"""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.api.tool import Function
from fairlead.api.workflow import Validate, Workflow
from fairlead.flow.textfree import room_for_text

SENSITIVITIES = ("Public", "Internal", "Confidential")


@dataclass(frozen=True, slots=True)
class Label:
    """`sensitivity` is an index into SENSITIVITIES."""

    untrusted: bool = False
    sensitivity: int = 0

    def join(self, other: Label) -> Label:
        """Return the worst of both."""
        return Label(self.untrusted or other.untrusted, max(self.sensitivity, other.sensitivity))

    def __str__(self) -> str:
        return f"{'Untrusted' if self.untrusted else 'Trusted'}/{SENSITIVITIES[self.sensitivity]}"

    @classmethod
    def parse(cls, text: str | None) -> Label:
        """Read the journal's form back; None stands for TRUSTED, which is not written."""
        if text is None:
            return TRUSTED
        trust, _, sensitivity = text.partition("/")
        return cls(trust == "Untrusted", SENSITIVITIES.index(sensitivity))


TRUSTED = Label()
"""What a Workflow says itself: trusted and public."""

WORST = Label(untrusted=True, sensitivity=len(SENSITIVITIES) - 1)
"""Of what nobody has labelled."""

TOLD = Label(untrusted=True)
"""Of what comes from outside and nobody vouches for: a run's input unless its Workflow says otherwise, and signals."""


def of_input(workflow: Workflow, parent: str | None) -> Label:
    """Return the label that a run's input starts with; of a child run it is no better than what led to it."""
    trusted = workflow.spec.input is not None and workflow.spec.input.trust == "Trusted"
    return (TRUSTED if trusted else TOLD).join(Label.parse(parent))


def written(label: Label) -> dict[str, str]:
    """Return what an entry's data says of a label: nothing of TRUSTED."""
    return {"label": str(label)} if label != TRUSTED else {}


def returned(function: Function | None) -> Label:
    """Return the label of what a function returns, as its contract says; without one it is untrusted and internal."""
    returns = function.returns if function is not None else None
    trust = returns.trust if returns is not None and returns.trust is not None else "Untrusted"
    sensitivity = returns.sensitivity if returns is not None and returns.sensitivity is not None else "Internal"
    return Label(trust == "Untrusted", SENSITIVITIES.index(sensitivity))


def endorses(definition: Validate) -> bool:
    """Tell whether what passes a `validate` can be trusted, whoever wrote it: its schema has no room for words."""
    return not why_not_endorsed(definition)


def why_not_endorsed(definition: Validate) -> str:
    """Return why what passes a `validate` is not trusted, and what would be right; "" if it is."""
    return "there is no schema" if definition.schema_ is None else room_for_text(definition.schema_)


def endorsed(control: Label, context: Label) -> Label:
    """Return the label of what has passed: as secret as what was read, as trusted as what led to the step."""
    return control.join(Label(sensitivity=context.sensitivity))


def leaves(label: Label, function: Function | None) -> bool:
    """Tell whether a call takes untrusted and confidential data to where it cannot be had back from.

    `function` is what a Tool is called for; None for models, whose answers stay here, and for Workflows, whose own
    calls are looked at with the same label.
    """
    if function is None or not label.untrusted or label.sensitivity < SENSITIVITIES.index("Confidential"):
        return False
    return function.reach != "Internal" or function.effect == "Irreversible"
