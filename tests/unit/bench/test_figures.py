"""Medians, ratios, targets, and the warning when the gateway was not what limited a run."""

from __future__ import annotations

import pytest

from bench.figures import Bound, Figure, figures_of, shares_of, warning_of
from bench.runner import GATEWAY, GATEWAY_CORE, OTHER_CORES, Run
from tests.unit.bench.samples import load_result, result


def by_name(figures: list[Figure]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures}


def test_reports_the_median_of_the_runs() -> None:
    gateway = [load_result(per_s=per_s) for per_s in (5000, 9000, 6000)]
    figures = by_name(figures_of(result("answers-2k", [load_result(per_s=60_000)], gateway)))
    assert figures["throughput"].gateway == 6000
    assert figures["throughput"].ratio == pytest.approx(0.1)
    assert figures["throughput"].met is True


def test_cpu_per_request_is_the_gateways_share_over_its_rate() -> None:
    figures = by_name(figures_of(result("answers-2k", [load_result()], [load_result(per_s=4000)], share=0.9)))
    assert figures["CPU per request"].gateway == pytest.approx(225)
    assert figures["CPU per request"].direct is None
    assert figures["CPU per request"].met is True


def test_large_bodies_have_no_target() -> None:
    figures = figures_of(result("answers-100k", [load_result()], [load_result(per_s=10)]))
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


def test_shares_are_medians_of_the_runs_through_the_gateway() -> None:
    assert shares_of(result("answers-2k", [load_result()], [load_result()], share=0.5))["gateway"] == 0.5
    assert shares_of(result("answers-2k", [load_result()], [])) == {}


def test_a_full_core_needs_no_warning() -> None:
    assert warning_of(result("answers-2k", [load_result()], [load_result()], share=0.97), other_cores=1) is None


def test_warns_when_the_gateway_was_not_the_bottleneck() -> None:
    measured = result("answers-2k", [load_result()], [load_result()], share=0.6)
    warning = warning_of(measured, other_cores=1)
    assert warning is not None
    assert "NOT the bottleneck, it used 60% of its core" in warning
    assert "postgres 30%" in warning
    assert "something waits" in warning


def test_tells_a_full_core_from_a_full_neighbour_and_from_other_programs() -> None:
    measured = result("answers-2k", [load_result()], [load_result()], share=0.8, others=0.19)
    assert "other programs" in str(warning_of(measured, other_cores=1))
    neighbour_full = result("answers-2k", [load_result()], [load_result()], share=0.8)
    neighbour_full.runs[GATEWAY] = [Run(load_result(), {GATEWAY: 0.8, GATEWAY_CORE: 0.8, OTHER_CORES: 0.99})]
    assert "they were full" in str(warning_of(neighbour_full, other_cores=1))


def test_a_paced_scenario_is_not_meant_to_saturate() -> None:
    assert warning_of(result("streams-paced", [load_result()], [load_result()], share=0.3), other_cores=1) is None
