"""What a reconciler decides, as data: objects that shall exist, objects that shall not, and what the status says.

Every kind's module has a pure `plan(...)` that returns a `Plan`; `reconcile.py` carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from fairlead.api.canonical import MAX_SPEC_DEPTH, too_deep
from fairlead.api.conditions import find_condition, set_condition
from fairlead.api.meta import Condition, Resource
from fairlead.api.mistakes import mistakes
from fairlead.api.reasons import NetworkReason, ReadyReason
from fairlead.errors import InvalidSpec
from fairlead.kube.types import ResourceType

Object = dict[str, Any]
Typed = tuple[ResourceType, Object]
R = TypeVar("R", bound=Resource)

MANAGER = "fairlead-operator"
_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """The `Ready` condition to be; `stalled` says that only a change of the object helps."""

    ready: bool | None
    reason: ReadyReason
    message: str = ""
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """Another condition of the operator's; `value` None is Unknown."""

    type: str
    value: bool | None
    reason: NetworkReason
    message: str


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object that shall not exist; with `uid` only this very one."""

    type: ResourceType
    name: str
    namespace: str
    uid: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do about one object.

    Attributes:
        verdict: what its status says when all of this was done; None: leave the status alone.
        apply: objects that shall be so, in this order, by server-side apply.
        create: objects that shall exist, whatever is in them.
        delete: objects that shall not exist; done before anything is applied.
        again_seconds: look again after this time even if nothing changes.
        status: what else of the status is the operator's.
        said: which conditions beside Ready and Stalled are.
    """

    verdict: Verdict | None = None
    apply: tuple[Typed, ...] = ()
    create: tuple[Typed, ...] = ()
    delete: tuple[Doomed, ...] = ()
    again_seconds: float | None = None
    status: Mapping[str, Any] = field(default_factory=dict)
    said: tuple[Said, ...] = ()


def parse(model: type[R], obj: Mapping[str, Any]) -> R:
    """Return the object as a typed resource.

    Raises:
        InvalidSpec: with the path of the first field that is wrong; admission by an older CRD may have let it in.
    """
    if too_deep(obj.get("spec"), most=MAX_SPEC_DEPTH):
        raise InvalidSpec("spec", f"nested deeper than {MAX_SPEC_DEPTH} levels")
    try:
        return model.model_validate({key: value for key, value in obj.items() if key != "status"})
    except ValidationError as error:
        raise InvalidSpec(*next(mistakes(error))) from None


def invalid(error: InvalidSpec) -> Verdict:
    """Return the verdict on an object whose spec cannot be right."""
    return Verdict(False, ReadyReason.INVALID_SPEC, str(error), stalled=True)


def listed(problems: list[str]) -> str:
    """Return the first problems as one message that says how many more there are."""
    shown = "; ".join(problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    return f"{shown}; and {more} more" if more > 0 else shown


def conditions_of(obj: Mapping[str, Any]) -> list[Condition]:
    """Return the well-formed conditions of an object's status."""
    found = []
    for raw in obj.get("status", {}).get("conditions", []):
        try:
            found.append(Condition.model_validate(raw))
        except ValidationError:
            continue  # somebody else's; ours are rewritten below
    return found


def status_of(
    obj: Mapping[str, Any],
    verdict: Verdict,
    *,
    more: Mapping[str, Any] | None = None,
    said: Sequence[Said] = (),
    now: str,
) -> Object | None:
    """Return the operator's part of the status, or None if it stands there already.

    Args:
        obj: the object as last seen.
        verdict: what its `Ready` shall say.
        more: its fields beside conditions.
        said: its conditions beside Ready and Stalled.
        now: RFC 3339, used where a condition changes.
    """
    generation = obj["metadata"].get("generation", 0)
    types = {"Ready", "Stalled", *(one.type for one in said)}
    before = [condition for condition in conditions_of(obj) if condition.type in types]
    ready = find_condition(before, "Ready")
    after = set_condition(
        [ready] if ready else [],
        "Ready",
        verdict.ready,
        reason=verdict.reason,
        message=verdict.message,
        now=now,
        observed_generation=generation,
    )
    if verdict.stalled:
        stalled = find_condition(before, "Stalled")
        after = set_condition(
            [*after, stalled] if stalled else after,
            "Stalled",
            True,
            reason=verdict.reason,
            message=verdict.message,
            now=now,
            observed_generation=generation,
        )
    for one in said:
        known = find_condition(before, one.type)
        after = set_condition(
            [*after, known] if known else after,
            one.type,
            one.value,
            reason=one.reason,
            message=one.message,
            now=now,
            observed_generation=generation,
        )
    status = {"observedGeneration": generation, **(more or {})}
    published = obj.get("status", {})
    if sorted(before, key=_type) == sorted(after, key=_type) and all(
        published.get(key) == value for key, value in status.items()
    ):
        return None
    return status | {"conditions": [condition.to_yaml_dict() for condition in after]}


def _type(condition: Condition) -> str:
    return condition.type
