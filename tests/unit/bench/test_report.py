"""What a person reads, and what is stored."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bench.report import ledger_line, number, print_report, store
from tests.unit.bench.samples import ledger_check, load_result, result

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {"cpu": "a CPU", "cores": 2, "kernel": "Linux", "python": "CPython 3.11"}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.0123, "0.012"), (1.5, "1.50"), (12.34, "12.3"), (54321.0, "54,321")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_report_names_targets_cores_ledger_and_warning() -> None:
    measured = result("answers-2k", [load_result(per_s=60_000)], [load_result(per_s=3000)], share=0.5)
    measured.ledger, measured.ready_s, measured.resident_mb = ledger_check(), 0.8, 95.0
    out = io.StringIO()
    print_report(Console(file=out, width=120), FACTS, [measured], other_cores=1)
    text = out.getvalue()
    assert "≥ 4,000 MISSED" in text
    assert "≤ 250 met" in text
    assert "95.0" in text
    assert "ledger answers-2k: exact" in text
    assert "NOT the bottleneck" in text


def test_limits_that_were_decided_elsewhere_make_figures_unsound() -> None:
    measured = result("answers-2k", [load_result()], [load_result()])
    measured.ledger = ledger_check()
    sound = replace(measured, decisions={"granted": 10})
    measured.decisions = {"granted": 4, "granted_locally": 6}
    assert sound.limited_by_redis
    assert not measured.limited_by_redis
    out = io.StringIO()
    print_report(Console(file=out, width=200), FACTS, [measured], other_cores=1)
    assert "Redis did not grant every request" in out.getvalue()
    assert "granted_locally 6" in out.getvalue()


def test_the_report_without_a_gateway_has_no_cores_and_no_ledger() -> None:
    out = io.StringIO()
    print_report(Console(file=out, width=120), FACTS, [result("answers-2k", [load_result()], [])], other_cores=1)
    assert "ledger" not in out.getvalue()
    assert "Share of a core" not in out.getvalue()


@pytest.mark.parametrize(
    "wrong",
    [
        ledger_check(answered=11),
        ledger_check(closed=11),
        ledger_check(exact=9),
        ledger_check(completion_tokens=899),
    ],
)
def test_any_difference_makes_a_ledger_inexact(wrong: object) -> None:
    assert ledger_check().exact
    assert not getattr(wrong, "exact", True)


def test_the_ledger_line_shows_both_sides() -> None:
    line = ledger_line("x", ledger_check(completion_tokens=800))
    assert "NOT exact" in line
    assert "tokens 100 + 800, the engine counted 100 + 900" in line


def test_what_is_stored_can_be_read_again(tmp_path: Path) -> None:
    measured = result("latency-answers", [load_result()], [load_result(p50_us=900)])
    measured.ledger = ledger_check()
    path = store(tmp_path / "results", FACTS, {"runs": 1}, [measured])
    stored = json.loads(path.read_text())
    assert stored["machine"] == FACTS
    scenario = stored["scenarios"][0]
    assert scenario["scenario"]["name"] == "latency-answers"
    assert scenario["figures"][0]["difference"] == pytest.approx(0.4)
    assert scenario["ledger"]["is_exact"] is True
    assert scenario["runs"]["gateway"][0]["load"]["latency_us"]["p50"] == 900
