"""Logs: one JSON object a line for machines, the gateway's and the libraries' alike."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import logging, sys, uuid
import structlog
from gateway.observe.logs import configure_logs
configure_logs({level!r}, {form!r})
log = structlog.get_logger("penstock.test")
log.debug("quiet")
log.info("request", request_id=uuid.UUID(int=1), path="/v1/caf\\u00e9\\n", tokens=7, odd=float("nan"))
logging.getLogger("uvicorn.error").warning("a bad request")
logging.getLogger("some.library").warning("careful: %s", "this")
def fail(token):
    raise ValueError("broken")
try:
    fail("hunter" + "2")
except ValueError:
    log.exception("failed")
"""


def logged(level: str, form: str) -> list[str]:
    """Return the lines that the program writes, in a process of its own: logging is set up for a whole process."""
    program = PROGRAM.format(level=level, form=form)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60, encoding="utf-8"
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_each_line_is_one_object() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in logged("info", "json")]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("request", "info"),
        ("careful: this", "warning"),
        ("failed", "error"),
    ]
    request, library, failure = lines
    assert (request["path"], request["tokens"], request["odd"]) == ("/v1/caf\u00e9\n", 7, None)
    assert request["request_id"] == "00000000-0000-0000-0000-000000000001"
    assert request["timestamp"].endswith("Z")
    assert library.keys() >= {"event", "level", "timestamp"}
    assert "ValueError: broken" in failure["exception"]


@pytest.mark.parametrize(("level", "events"), [("debug", 4), ("warning", 2), ("error", 2)])
def test_a_level_is_the_least_that_is_written(level: str, events: int) -> None:
    assert len(logged(level, "json")) == events


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_variables_hold_is_in_no_traceback(form: str) -> None:
    text = "\n".join(logged("info", form))
    assert "Traceback" in text
    assert "hunter2" not in text


def test_people_read_lines_without_braces() -> None:
    text = "\n".join(logged("info", "console"))
    assert "request" in text
    assert "ValueError: broken" in text
    assert not text.startswith("{")
