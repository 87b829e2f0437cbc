"""A log line is one JSON object that names run and trace."""

from __future__ import annotations

import json
import logging

from fairlead.telemetry.logs import JsonFormatter


def test_a_line_is_one_json_object_with_run_and_trace() -> None:
    record = logging.makeLogRecord(
        {"name": "fairlead.engine", "msg": "run %s", "args": ("x\ny",), "run": "u", "trace": "t"}
    )
    line = JsonFormatter("engine").format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["run"], parsed["trace"], parsed["process"]) == ("run x\ny", "u", "t", "engine")
