"""Static checks of what makes runs: times that exist, expressions over what a request has, inputs that can fit."""

from __future__ import annotations

import pytest
from tests.unit.flow.test_checks import ONE, check


def scheduled(schedules: str) -> str:
    return f"triggers: {{schedules: [{schedules}]}}\nretention: {{succeeded: 1}}\nsteps: [{ONE}]"


def requested(triggers: str) -> str:
    """Return a Workflow with these HTTP triggers."""
    retention = "retention: {ttlSecondsAfterFinished: 60}"
    return f"triggers: {{http: [{triggers}]}}\n{retention}\nsteps: [{ONE}]"


WRONG: dict[str, tuple[str, str, str]] = {
    "a schedule that never comes": (
        scheduled("{name: n, cron: '0 0 31 2 *'}"),
        "spec.triggers.schedules[0].cron",
        "bad day-of-month in '0 0 31 2 *'",
    ),
    "a time zone that nobody knows": (
        scheduled("{name: n, cron: '0 0 * * *', timeZone: Europe/Pari}"),
        "spec.triggers.schedules[0].timeZone",
        "there is no time zone 'Europe/Pari'",
    ),
    "a scheduled input that does not fit": (
        scheduled("{name: n, cron: '0 0 * * *'}") + "\ninput: {schema: {required: [day]}}",
        "spec.triggers.schedules[0].input",
        "day",
    ),
    "two schedules of one name": (
        scheduled("{name: n, cron: '0 0 * * *'}, {name: n, cron: '0 1 * * *'}"),
        "spec.triggers.schedules[1].name",
        "'n' is also the name of spec.triggers.schedules[0]",
    ),
    "two HTTP triggers of one name": (
        requested("{name: n, auth: {kubernetes: {}}}, {name: n, auth: {kubernetes: {}}}"),
        "spec.triggers.http[1].name",
        "'n' is also the name of spec.triggers.http[0]",
    ),
    "a trigger that reads what a request does not have": (
        requested("{name: n, auth: {kubernetes: {}}, when: input.x}"),
        "spec.triggers.http[0].when",
        "there is no 'input'; there are body and headers",
    ),
    "a trigger's condition that is a text": (
        requested("{name: n, auth: {kubernetes: {}}, when: \"'x'\"}"),
        "spec.triggers.http[0].when",
        "a condition must be true or false; this is of type string",
    ),
    "a trigger's input that is no expression": (
        requested("{name: n, auth: {kubernetes: {}}, input: {day: '$( body. )'}}"),
        "spec.triggers.http[0].input",
        "",
    ),
    "a trigger's input that cannot fit": (
        requested("{name: n, auth: {kubernetes: {}}, input: {hour: '$( body.hour )'}}")
        + "\ninput: {schema: {required: [day]}}",
        "spec.triggers.http[0].input",
        '"day" is a required property',
    ),
    "a key of what a request does not have": (
        requested("{name: n, auth: {kubernetes: {}}, dedupeKey: '$( run.uid )'}"),
        "spec.triggers.http[0].dedupeKey",
        "there is no 'run'",
    ),
    "a signal to nobody": (
        requested("{name: n, auth: {kubernetes: {}}, signal: {run: '$( steps.a )', name: go}}"),
        "spec.triggers.http[0].signal.run",
        "there is no 'steps'",
    ),
    "schedules whose runs pile up": (
        f"triggers: {{schedules: [{{name: n, cron: '0 0 * * *'}}]}}\nsteps: [{ONE}]",
        "spec.retention",
        "say in retention which of them stay",
    ),
}


@pytest.mark.parametrize(("text", "path", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_a_trigger_is_found_once_with_its_path(text: str, path: str, message: str) -> None:
    (finding,) = check(text)
    assert (finding.path, finding.reason) == (path, "InvalidSpec")
    assert message in finding.message
