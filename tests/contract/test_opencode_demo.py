"""`make demo-opencode`: it shows the truth, and its exit code says it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.contract.opencode_demo import Figures
from tests.support.source import REPOSITORY

DEMO_S_MAX = 90.0
ENGINES = Figures(requests=3, prompt_tokens=100, cached_tokens=40, completion_tokens=20)


def test_a_fresh_clone_can_watch_it_work() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.contract.opencode_demo", "--data-dir", "nothing-runs-here"],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEMO_S_MAX,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "bash  echo hello\n  hello\n" in done.stdout
    assert "Equal: every token" in done.stdout


def test_ledger_and_engines_agree_when_every_sum_does() -> None:
    assert replace(ENGINES, cost_pico_usd=7).agrees_with(ENGINES)
    assert not Figures().agrees_with(Figures()), "nothing happened"


@pytest.mark.parametrize(
    "difference",
    [{"requests": 4}, {"prompt_tokens": 99}, {"cached_tokens": 0}, {"completion_tokens": 21}, {"inexact": 1}],
)
def test_any_difference_is_a_difference(difference: dict[str, int]) -> None:
    assert not replace(ENGINES, **difference).agrees_with(ENGINES)
