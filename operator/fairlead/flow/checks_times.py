"""The static checks of times: a wait, an approval or a step's timeoutSeconds that something around it cuts off.

What is around a step of a block is the step that runs the block, the run, and for `finally` its half a minute. A block
that runs in several places is held against the one with the most time: what fits somewhere may be meant for there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fairlead.api.workflow import Block, Limits, Step, WorkflowSpec
from fairlead.flow.checks_triggers import Problem
from fairlead.flow.expressions import ExpressionError
from fairlead.flow.next import FINALLY_MS
from fairlead.flow.sites import block_calls, final_call
from fairlead.flow.steps.wait import unix_ms


@dataclass(frozen=True, slots=True, order=True)
class _Bound:
    """How long what is inside can take, and the words for what ends it."""

    seconds: int
    ends: str


def time_problems(spec: WorkflowSpec, order: Iterable[str]) -> Iterator[Problem]:
    """Yield what takes longer than it may; `order` are the blocks that are used, callers first."""
    blocks = {block.name: block for block in spec.blocks}
    paths = {block.name: f"spec.blocks[{index}]" for index, block in enumerate(spec.blocks)}
    limit = (spec.limits or Limits()).timeout_seconds
    bounds = {"": _Bound(limit, f"the run ends after {limit} s; wait less, or raise spec.limits.timeoutSeconds")}
    for call in final_call(spec):
        most = FINALLY_MS // 1000
        bounds[call.block] = _Bound(most, f"finally ends after {most} s; wait less, or do it before")
    for name in ("", *order):
        for index, step in enumerate(blocks[name].steps if name else spec.steps):
            path = f"{paths.get(name, 'spec')}.steps[{index}]"
            yield from _step(step, path, bounds[name])
            for block, bound in _inside(step, path, blocks, bounds[name]):
                bounds[block] = max(bound, bounds.get(block, bound))


def _step(step: Step, path: str, bound: _Bound) -> Iterator[Problem]:
    lengths = {"approval.expiresAfterSeconds": step.approval.expires_after_seconds} if step.approval else {}
    if step.wait is not None:
        lengths = {"wait.seconds": step.wait.seconds or 0, "wait.timeoutSeconds": step.wait.timeout_seconds or 0}
    for field, seconds in lengths.items():
        if seconds >= bound.seconds:
            yield f"{path}.{field}", bound.ends
    if (step.timeout_seconds or 0) > bound.seconds:
        yield f"{path}.timeoutSeconds", bound.ends
    if step.wait is not None and step.wait.until is not None and "$(" not in step.wait.until:
        try:
            unix_ms(step.wait.until)
        except ExpressionError as error:
            yield f"{path}.wait.until", error.message


def _inside(step: Step, path: str, blocks: Mapping[str, Block], bound: _Bound) -> Iterator[tuple[str, _Bound]]:
    """Yield the blocks that a step runs, with how long they can take. Its onError block is no part of an attempt."""
    own = step.timeout_seconds
    ends = f"{path}.timeoutSeconds ends it after {own} s; wait less, or raise that"
    attempt = min(bound, _Bound(own, ends)) if own is not None else bound
    for call in block_calls(step, path, blocks):
        if call.block in blocks:
            yield call.block, bound if call.path.endswith(".onError.block") else attempt
