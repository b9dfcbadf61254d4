"""The warnings: what was measured was not what limited a run, or its neighbours were too busy."""

from __future__ import annotations

import pytest

from bench.caveats import caveats_of, headroom, shares_of
from bench.runner import GATEWAY_CORE, OTHER_CORES
from bench.schedule import DIRECT, GATEWAY, NGINX
from tests.unit.bench.samples import load_result, result, run, with_nginx

FAST = load_result(per_s=60_000)


def test_shares_are_medians_of_the_runs_through_the_gateway() -> None:
    assert shares_of(result("answers-2k", [load_result()], [load_result()], share=0.5))["gateway"] == 0.5
    assert shares_of(result("answers-2k", [load_result()], [])) == {}


def test_a_full_core_needs_no_warning() -> None:
    assert caveats_of(result("answers-2k", [FAST], [load_result()], share=0.97), other_cores=1) == []


def test_warns_when_the_gateway_was_not_the_bottleneck() -> None:
    measured = result("answers-2k", [FAST], [load_result()], share=0.6)
    (warning,) = caveats_of(measured, other_cores=1)
    assert "the gateway was NOT the bottleneck, it used 60% of its core" in warning
    assert "postgres 30%" in warning
    assert "something waits" in warning


def test_tells_a_full_core_from_a_full_neighbour_and_from_other_programs() -> None:
    measured = result("answers-2k", [FAST], [load_result()], share=0.8, others=0.19)
    assert "other programs" in caveats_of(measured, other_cores=1)[0]
    neighbour_full = result("answers-2k", [FAST], [load_result()], share=0.8)
    neighbour_full.runs[GATEWAY] = [run(load_result(), {GATEWAY: 0.8, GATEWAY_CORE: 0.8, OTHER_CORES: 0.99})]
    assert "they were full" in caveats_of(neighbour_full, other_cores=1)[0]


@pytest.mark.parametrize(("direct_per_s", "warned"), [(2_900, True), (3_100, False)])
def test_engine_and_client_must_be_several_times_faster(direct_per_s: float, warned: bool) -> None:  # noqa: FBT001 - a case
    measured = result("answers-2k", [load_result(per_s=direct_per_s)], [load_result()], share=0.97)
    assert headroom(measured) == pytest.approx(direct_per_s / 1000)
    assert any("alone reach only 2.9 times" in caveat for caveat in caveats_of(measured, other_cores=1)) is warned


def test_chunks_are_what_counts_for_the_headroom_of_streams() -> None:
    direct, through = load_result(chunks_per_s=900_000), load_result(chunks_per_s=90_000)
    assert headroom(result("streams-flat-out", [direct], [through])) == pytest.approx(10)


def test_nginx_is_only_believed_with_a_full_core() -> None:
    quick = with_nginx(result("answers-2k", [FAST], [load_result()], share=0.97), load_result(per_s=50_000), share=0.5)
    assert "nginx was NOT the bottleneck" in caveats_of(quick, other_cores=1)[0]
    full = with_nginx(result("answers-2k", [FAST], [load_result()], share=0.97), load_result(per_s=50_000), share=0.99)
    assert caveats_of(full, other_cores=1) == []
    assert headroom(full, NGINX) == pytest.approx(1.2)


def test_a_paced_scenario_is_not_meant_to_saturate() -> None:
    assert caveats_of(result("streams-paced", [load_result()], [load_result()], share=0.3), other_cores=1) == []


def test_latencies_beside_full_cores_are_the_neighbours() -> None:
    measured = result("streams-paced", [load_result()], [load_result()], share=0.3)
    measured.runs[DIRECT] = [run(load_result(), {"engine": 0.6, GATEWAY_CORE: 0.0, OTHER_CORES: 0.97})]
    (warning,) = caveats_of(measured, other_cores=1)
    assert "streams-paced, direct: the other cores were full (97% of 100%)" in warning
    assert caveats_of(measured, other_cores=2) == []
    assert NGINX not in measured.runs
