"""Medians, ratios, what was added, and targets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.figures import Bound, Figure, figures_of
from bench.schedule import DIRECT, GATEWAY, NGINX
from tests.unit.bench.samples import load_result, result, started, with_nginx


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_reports_the_median_of_the_runs() -> None:
    gateway = [load_result(per_s=per_s) for per_s in (5000, 9000, 6000)]
    figures = by_name(figures_of(result("answers-2k", [load_result(per_s=60_000)], gateway)))
    assert figures["throughput"].gateway == 6000
    assert figures["throughput"].ratio == pytest.approx(0.1)
    assert figures["throughput"].met is True
    assert figures["throughput"].values == {DIRECT: [60_000], GATEWAY: [5000, 9000, 6000]}


def test_cpu_per_request_is_the_gateways_share_over_its_rate() -> None:
    figures = by_name(figures_of(result("answers-2k", [load_result()], [load_result(per_s=4000)], share=0.9)))
    assert figures["CPU per request"].gateway == pytest.approx(225)
    assert figures["CPU per request"].direct is None
    assert figures["CPU per request"].met is True


def test_large_bodies_have_no_target() -> None:
    large = [result(f"answers-{size}", [load_result()], [load_result(per_s=10)]) for size in ("100k", "800k")]
    figures = [figure for measured in large for figure in figures_of(measured)]
    assert [figure.bound for figure in figures] == [None] * len(figures)


@pytest.mark.parametrize(("gateway_us", "met"), [(20_900, True), (21_100, False)])
def test_added_latency_is_a_difference_at_the_median(gateway_us: float, met: bool) -> None:  # noqa: FBT001 - a case
    measured = result("latency-streams", [load_result(p50_us=20_000)], [load_result(p50_us=gateway_us)])
    first_token = by_name(figures_of(measured))["first token p50"]
    assert first_token.difference == pytest.approx((gateway_us - 20_000) / 1000)
    assert first_token.met is met


def test_streams_that_fall_behind_miss_their_target() -> None:
    direct, slow = load_result(chunks_per_s=20_000), load_result(chunks_per_s=15_000)
    figures = by_name(figures_of(result("streams-paced", [direct], [slow], share=0.7)))
    assert figures["delivered"].met is False
    assert figures["share of a core"].gateway == pytest.approx(70)
    assert figures["share of a core"].met is True


def test_transit_of_chunks_is_compared_with_direct_and_nginx() -> None:
    measured = result("streams-paced", [load_result(p50_us=20)], [load_result(p50_us=300)])
    figures = by_name(figures_of(with_nginx(measured, load_result(p50_us=50))))
    assert figures["chunk transit p50"].nginx == pytest.approx(0.05)
    assert figures["chunk transit p50"].difference == pytest.approx(0.28)
    assert figures["chunk transit p99"].difference == pytest.approx(0.84)
    assert figures["chunk transit p99"].values[NGINX] == [pytest.approx(0.15)]


def test_a_percentile_without_samples_is_missing_and_not_zero() -> None:
    measured = result("streams-paced", [load_result()], [replace(load_result(), transit_us=None)])
    figures = by_name(figures_of(measured))
    assert figures["chunk transit p50"].gateway is None
    assert figures["chunk transit p50"].direct is not None


def test_memory_is_that_before_and_the_highest_under_load() -> None:
    figures = by_name(
        figures_of(with_nginx(result("streams-paced-400", [load_result()], [load_result()]), load_result()))
    )
    assert (figures["memory idle"].gateway, figures["memory peak"].gateway) == (100, 120)
    assert (figures["memory idle"].nginx, figures["memory peak"].nginx) == (12, 20)


def test_four_hundred_streams_are_measured_but_held_to_nothing() -> None:
    figures = by_name(figures_of(result("streams-paced-400", [load_result()], [load_result(chunks_per_s=1.0)], 0.99)))
    assert figures["delivered"].met is None
    assert figures["share of a core"].met is None
    assert figures["CPU per chunk"].gateway == pytest.approx(990_000)


def test_starting_is_told_by_the_median_of_the_starts() -> None:
    figures = by_name(figures_of(started(0.9, 3.0, 1.0)))
    assert figures["time to ready"].gateway == 1.0
    assert figures["time to ready"].values == {GATEWAY: [0.9, 3.0, 1.0]}
    assert figures["time to ready"].direct is None


def test_chunks_count_for_saturated_streams() -> None:
    figures = by_name(figures_of(result("streams-flat-out", [load_result()], [load_result(chunks_per_s=50_000)])))
    assert figures["CPU per chunk"].gateway == pytest.approx(20)


def test_without_a_gateway_nothing_is_met_or_missed() -> None:
    figures = figures_of(result("answers-2k", [load_result()], []))
    assert {figure.met for figure in figures} == {None}
    assert {figure.ratio for figure in figures} == {None}


def test_a_bound_includes_its_value() -> None:
    assert Bound("gateway", "less", 250).met(250)
    assert Bound("gateway", "more", 4000).met(4000)
    assert not Bound("gateway", "more", 4000).met(3999)
