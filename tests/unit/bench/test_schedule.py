"""What is run how often and how long, and the bound on all of it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from bench.__main__ import main
from bench.errors import BenchError
from bench.options import measure_options, stored_options
from bench.scenarios import SCENARIOS, select
from bench.schedule import DIRECT, GATEWAY, NGINX, estimate_s, plan_of, time_limit
from bench.toolchain import build_tools

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = (DIRECT, NGINX, GATEWAY)


def test_all_of_it_takes_ten_minutes_at_most() -> None:
    options = measure_options([])
    plan = plan_of(options.runs, options.seconds, quick=options.quick)
    assert 300 < estimate_s(SCENARIOS, plan, TARGETS) <= 600
    assert estimate_s(SCENARIOS, plan_of(3, 4.0, quick=True), TARGETS) < 180


def test_the_estimate_counts_every_run_of_every_target() -> None:
    one, two = plan_of(1, 4.0, quick=False), plan_of(2, 4.0, quick=False)
    scenarios = select(["answers-2k"])
    assert estimate_s(scenarios, two, [DIRECT]) == 2 * estimate_s(scenarios, one, [DIRECT]) == 8
    assert estimate_s(select(["start-up"]), two, TARGETS) > 5


def test_streams_are_all_running_when_measuring_begins() -> None:
    many = select(["streams-paced-400"])[0]
    assert plan_of(1, 4.0, quick=True).timing(many, GATEWAY).warmup_s > many.load.ramp_s > 2
    assert many.stream_s == pytest.approx(3.02)


@pytest.mark.parametrize(("runs", "seconds"), [(0, 4.0), (3, 0.0), (3, -1.0), (3, float("nan")), (3, 1e9)])
def test_refuses_what_cannot_be_run(runs: int, seconds: float) -> None:
    with pytest.raises(BenchError):
        plan_of(runs, seconds, quick=False)


def test_a_limit_ends_what_would_go_on_for_ever() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(BenchError, match="given up"), time_limit(0.05):
        signal.pause()
    assert signal.getsignal(signal.SIGALRM) == before
    with time_limit(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 50
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_what_is_stored_of_the_options_holds_no_password() -> None:
    options = stored_options(measure_options(["--postgres-dsn=postgresql://u:secret@h/d", "--redis-url=redis://:x@h"]))
    assert options["runs"] == 3
    assert options["nginx"] is None
    assert "secret" not in str(options)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--scenario", "nonsense"], "no scenario 'nonsense'"),
        (["--scenario", "start-up", "--direct-only"], "nothing to measure"),
        (["--runs", "0"], "at least one run"),
        (["compare", "/nonexistent/a.json", "/nonexistent/b.json"], "cannot be read"),
    ],
)
def test_says_what_is_wrong_and_starts_nothing(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert complaint in capsys.readouterr().out


def test_says_what_to_install_when_nginx_is_asked_for_and_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.__main__.find_nginx", lambda: None)
    assert main(["--nginx"]) == 1
    assert "apt-get install nginx-light" in capsys.readouterr().out


def test_says_what_to_install_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("bench.__main__.available_cores", lambda: frozenset({0, 1}))
    monkeypatch.setattr("bench.__main__.build_tools", lambda: build_tools(tmp_path))
    assert main(["--no-nginx"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "need a C compiler (cc, gcc, clang) on the PATH" in said
    assert "apt-get install gcc" in said
