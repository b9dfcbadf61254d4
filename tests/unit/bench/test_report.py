"""What a person reads."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bench.report import ledger_line, number, print_report
from bench.runner import GATEWAY_CORE, OTHER_CORES
from bench.scenarios import SCENARIOS
from bench.schedule import GATEWAY
from tests.unit.bench.samples import ledger_check, load_result, result, run

ALL_GROUPS = (GATEWAY, "engine", "redis", "postgres", GATEWAY_CORE, OTHER_CORES, "load")
FACTS = {"cpu": "a CPU", "cores": 2, "kernel": "Linux", "python": "CPython 3.11"}


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.0123, "0.012"), (1.5, "1.50"), (12.34, "12.3"), (54321.0, "54,321")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_report_names_targets_cores_ledger_and_warning() -> None:
    measured = result("answers-2k", [load_result(per_s=60_000)], [load_result(per_s=3000)], share=0.5)
    measured.ledger = ledger_check()
    out = io.StringIO()
    print_report(Console(file=out, width=120), FACTS, [measured], other_cores=1)
    text = out.getvalue()
    assert "≥ 4,000 MISSED" in text
    assert "≤ 250 met" in text
    assert "x20.0" in text, "the headroom"
    assert "ledger answers-2k: exact" in text
    assert "NOT the bottleneck" in text


def test_every_line_of_the_tables_fits_into_a_log() -> None:
    measured = [result(scenario.name, [load_result()], [load_result()]) for scenario in SCENARIOS]
    for one in measured:
        one.ledger = ledger_check()
        one.runs[GATEWAY][0] = run(load_result(), dict.fromkeys(ALL_GROUPS, 0.5))
    out = io.StringIO()
    print_report(Console(file=out, width=120), FACTS, measured, other_cores=1)
    assert "…" not in out.getvalue()


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
