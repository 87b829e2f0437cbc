"""The static checks of what makes runs: times that exist, expressions over what a request has, inputs that can fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fairlead.api.triggers import HttpTrigger, Schedule
from fairlead.api.workflow import WorkflowSpec
from fairlead.flow.celtypes import judge, unlike
from fairlead.flow.cron import cron_problem, zone_problem
from fairlead.flow.expressions import ExpressionError, compile_expression
from fairlead.flow.literals import misfits
from fairlead.flow.schema import check_schema, findings
from fairlead.flow.template import expressions_in

REQUEST = ("body", "headers")
"""What the expressions of an HTTP trigger read."""

Problem = tuple[str, str]
"""A field path, and what is wrong there."""


def trigger_problems(spec: WorkflowSpec) -> Iterator[Problem]:
    """Yield what is wrong with a Workflow's triggers."""
    triggers = spec.triggers
    if triggers is None:
        return
    schema = spec.input.schema_ if spec.input is not None else None
    schema = schema if schema is not None and not check_schema(schema) else None
    yield from _names("schedules", [schedule.name for schedule in triggers.schedules or []])
    yield from _names("http", [trigger.name for trigger in triggers.http or []])
    for index, schedule in enumerate(triggers.schedules or []):
        yield from _schedule(schedule, f"spec.triggers.schedules[{index}]", schema)
    for index, trigger in enumerate(triggers.http or []):
        yield from _http(trigger, f"spec.triggers.http[{index}]", schema)


def _names(kind: str, names: list[str]) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if names.index(name) < index:
            first = f"spec.triggers.{kind}[{names.index(name)}]"
            yield f"spec.triggers.{kind}[{index}].name", f"'{name}' is also the name of {first}"


def _schedule(schedule: Schedule, path: str, schema: Any) -> Iterator[Problem]:
    wrong = {".cron": cron_problem(schedule.cron)}
    wrong[".timeZone"] = zone_problem(schedule.time_zone) if schedule.time_zone is not None else None
    yield from ((f"{path}{field}", problem) for field, problem in wrong.items() if problem is not None)
    if schema is not None:
        yield from ((f"{path}.input", problem) for problem in findings(schema, schedule.input or {}))


def _http(trigger: HttpTrigger, path: str, schema: Any) -> Iterator[Problem]:
    if trigger.when is not None:
        yield from _expressions([trigger.when], f"{path}.when", "boolean")
    signal = trigger.signal
    for field, value in {
        "input": trigger.input,
        "dedupeKey": trigger.dedupe_key,
        "signal.run": signal.run if signal is not None else None,
        "signal.data": signal.data if signal is not None else None,
    }.items():
        try:
            yield from _expressions(expressions_in(value), f"{path}.{field}")
        except ExpressionError as error:
            yield f"{path}.{field}", error.message
    if schema is not None and signal is None:
        yield from ((f"{path}.input", problem) for problem in misfits(schema, trigger.input or {}))


def _expressions(texts: list[str], path: str, wanted: str = "") -> Iterator[Problem]:
    for text in texts:
        try:
            references = compile_expression(text).references
        except ExpressionError as error:
            yield path, error.message
            continue
        for reference in references:
            if reference.root not in REQUEST:
                yield path, f"there is no '{reference.root}'; there are {' and '.join(REQUEST)}"
        if wanted and (problem := unlike(judge(text, ())[0], wanted)):
            yield path, problem
