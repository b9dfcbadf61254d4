"""The page of guarantees: what it shows is what was measured, and what was typed into it shows."""

from __future__ import annotations

import json

import pytest

from tests.guarantees.page import Result, rendered, results_of, worst
from tests.guarantees.promises import PROMISES
from tests.support.guarantees import RESULTS_VARIABLE, measured

RESULTS = {name: Result(float(number), "seed 1") for number, name in enumerate(PROMISES)}


def test_the_page_holds_what_it_was_written_from() -> None:
    page = rendered(RESULTS, "2 cores")
    assert results_of(page) == (RESULTS, "2 cores")
    assert rendered(*results_of(page)) == page
    assert all(promise.promise in page and promise.test in page for promise in PROMISES.values())


def test_a_promise_without_a_figure_makes_no_page() -> None:
    with pytest.raises(KeyError):
        rendered({}, "2 cores")


def test_what_was_typed_shows() -> None:
    page = rendered(RESULTS, "2 cores")
    typed = page.replace("| 1 tokens |", "| 0 tokens |")
    assert typed != page
    assert rendered(*results_of(typed)) != typed
    with pytest.raises(ValueError, match="by hand"):
        results_of(page.replace('"value": 1.0', '"value": 0.0'))
    with pytest.raises(ValueError, match="no results"):
        results_of("# Guarantees")


def test_the_worst_figure_counts() -> None:
    lines = [json.dumps({"id": "hang-up", "value": value, "conditions": str(value)}) for value in (0.1, 0.31234, 0.2)]
    assert worst(lines) == {"hang-up": Result(0.312, "0.31234")}


def test_a_figure_is_held_against_its_bound_and_written_down(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path_factory.mktemp("guarantees") / "results.jsonl"
    monkeypatch.setenv(RESULTS_VARIABLE, str(path))
    measured("hang-up", 0.9, "here")
    with pytest.raises(AssertionError, match=r"1\.1 s, promised: within 1 s"):
        measured("hang-up", 1.1)
    assert worst(path.read_text().splitlines()) == {"hang-up": Result(1.1, "")}
