"""What is stored can be read again, and two of it compared."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from bench.compare import changes, differences, print_comparison
from bench.errors import BenchError
from bench.pinning import Cores
from bench.storage import Conditions, Document, read_document, store
from tests.unit.bench.samples import ledger_check, load_result, result, started, with_nginx

if TYPE_CHECKING:
    from pathlib import Path

    from bench.runner import ScenarioResult

FACTS = {"cpu": "a CPU", "cores": 2, "kernel": "Linux", "commit": "abc"}
CONDITIONS = Conditions(FACTS, {"runs": 1}, Cores(frozenset({0}), frozenset({1})), None, "nginx is not installed")


def stored(folder: Path, *results: ScenarioResult, conditions: Conditions = CONDITIONS) -> Document:
    """Store these results and read them again."""
    return read_document(store(folder, conditions, results))


def throughput(*per_s: float) -> ScenarioResult:
    """Return a result with these rates of the gateway."""
    return result("answers-2k", [load_result(per_s=60_000)], [load_result(per_s=rate) for rate in per_s])


def test_what_is_stored_can_be_read_again(tmp_path: Path) -> None:
    measured = result("latency-answers", [load_result()], [load_result(p50_us=900)])
    measured.ledger = ledger_check()
    document = stored(tmp_path / "results", measured, started(0.9))
    assert document.machine == FACTS
    assert document.cores == {"gateway": [0], "others": [1], "unused": [], "shared": False}
    scenario, start_up = document.scenarios
    assert scenario.scenario["name"] == "latency-answers"
    assert scenario.figures[0].difference == pytest.approx(0.4)
    assert scenario.figures[0].values["gateway"] == [0.9]
    assert scenario.ledger is not None
    assert scenario.ledger["is_exact"] is True
    assert scenario.runs["gateway"][0]["load"]["latency_us"]["p50"] == 900
    assert start_up.starts[0]["ready_s"] == 0.9


def test_a_missing_nginx_is_told_with_its_reason(tmp_path: Path) -> None:
    path = store(tmp_path, CONDITIONS, [throughput(5000)])
    raw = json.loads(path.read_text())
    assert raw["nginx"] is None
    assert raw["nginx_missing_because"] == "nginx is not installed"
    assert raw["scenarios"][0]["figures"][0]["nginx"] is None


def test_a_measured_nginx_stands_beside(tmp_path: Path) -> None:
    conditions = replace(CONDITIONS, nginx="nginx/1.0", nginx_missing_because=None)
    document = stored(tmp_path, with_nginx(throughput(5000), load_result(per_s=40_000)), conditions=conditions)
    assert document.nginx == "nginx/1.0"
    assert document.scenarios[0].figures[0].nginx == 40_000
    assert any("nginx" in caveat for caveat in document.scenarios[0].caveats)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 2}', '{"format": 2, "scenarios": "many"}']
)
def test_refuses_what_is_not_a_measurement(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"x\.json"):
        read_document(path)


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        ((5000, 5100), (6000, 6100), True),
        ((5000, 5100), (4000, 4100), False),
        ((5000, 6000), (5500, 7000), None),
    ],
)
def test_more_throughput_is_better_unless_it_may_be_chance(
    before: tuple[float, ...], after: tuple[float, ...], better: object, tmp_path: Path
) -> None:
    found = changes(stored(tmp_path / "a", throughput(*before)), stored(tmp_path / "b", throughput(*after)))
    by_name = {change.name: change for change in found}
    assert by_name["throughput"].better is better
    assert by_name["CPU per request"].better is better, "less is better, and it is less where the rate is higher"


def test_what_only_one_of_them_has_is_not_compared(tmp_path: Path) -> None:
    one, other = stored(tmp_path / "a", throughput(1.0)), stored(tmp_path / "b", started(1.0))
    assert changes(one, other) == []
    out = io.StringIO()
    print_comparison(Console(file=out, width=120), one, other)
    assert "no figure of the gateway in common" in out.getvalue()


def test_warns_of_another_machine_and_prints_both(tmp_path: Path) -> None:
    one = stored(tmp_path / "a", throughput(5000))
    other = stored(tmp_path / "b", throughput(6000), conditions=replace(CONDITIONS, machine={**FACTS, "cores": 64}))
    assert differences(one, one) == []
    out = io.StringIO()
    print_comparison(Console(file=out, width=120), one, other)
    assert "not the same cores: 2 and 64" in out.getvalue()
    assert "+20.0%" in out.getvalue()
    assert "better" in out.getvalue()
