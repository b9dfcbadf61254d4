"""The plan of a replay: its figures are those of the trace it stands for, and its sessions are such as agents have."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from statistics import median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dev.replay.plan import (
    GAP_S_P50,
    INPUT_TOKENS_MAX,
    INPUT_TOKENS_P50,
    INPUT_TOKENS_P90,
    OUTPUT_TOKENS_P50,
    REUSED_SHARE,
    REUSING_TURNS_SHARE,
    SUB_AGENT_SHARE,
    Turn,
    shared_tokens,
    turns_of,
)

AGENTS, TURNS_EACH = 64, 1_500
SCALES = st.sampled_from([1.0, 0.1, 0.01, 0.001])


def sample(seed: int, scale: float) -> list[Turn]:
    return [turn for agent in range(AGENTS) for turn in islice(turns_of(seed, agent, scale), TURNS_EACH)]


@pytest.mark.parametrize(("seed", "scale"), [(0, 1.0), (1, 1.0), (2, 0.01)])
def test_the_figures_are_those_of_the_trace(seed: int, scale: float) -> None:
    turns = sample(seed, scale)
    inputs = [turn.input_tokens / scale for turn in turns]
    # What a message takes at least does not shrink with the scale.
    near = 0.04 if scale == 1.0 else 0.18
    assert median(inputs) == pytest.approx(INPUT_TOKENS_P50, rel=near)
    assert quantiles(inputs, n=10)[-1] == pytest.approx(INPUT_TOKENS_P90, rel=near)
    assert median(turn.output_tokens for turn in turns) == pytest.approx(OUTPUT_TOKENS_P50, rel=0.06)
    assert median(turn.kept_tokens / scale for turn in turns) == pytest.approx(OUTPUT_TOKENS_P50, rel=0.06)
    assert median(turn.gap_s for turn in turns) == pytest.approx(GAP_S_P50, rel=0.03)
    reusing = sum(turn.reused_tokens >= REUSED_SHARE * turn.input_tokens for turn in turns)
    assert reusing / len(turns) == pytest.approx(REUSING_TURNS_SHARE, abs=0.01)
    sub_agents = sum(turn.sub_agent for turn in turns) / len(turns)
    assert sub_agents > 0.5
    assert sub_agents == pytest.approx(SUB_AGENT_SHARE, abs=0.06)


@given(seed=st.integers(), agent=st.integers(0, 1_000), scale=SCALES)
def test_a_session_only_grows(seed: int, agent: int, scale: float) -> None:
    """All that was asked and answered is there again, and something is new."""
    last: dict[int, Turn] = {}
    for turn in islice(turns_of(seed, agent, scale), 200):
        before = last.get(turn.session)
        assert turn.first is (before is None)
        if before is None:
            assert turn.reused_tokens == shared_tokens(scale) < turn.input_tokens
        else:
            assert not before.last
            assert turn.sub_agent is before.sub_agent
            assert turn.reused_tokens == before.input_tokens
            assert turn.input_tokens > before.input_tokens + before.kept_tokens
        assert turn.input_tokens <= max(INPUT_TOKENS_MAX * scale, shared_tokens(scale) + 100)
        assert turn.output_tokens >= 1
        assert turn.gap_s > 0
        last[turn.session] = turn


@given(seed=st.integers(), scale=SCALES, output_scale=SCALES)
def test_the_scale_of_answers_changes_nothing_else(seed: int, scale: float, output_scale: float) -> None:
    whole, scaled = (list(islice(turns_of(seed, 0, scale, outputs), 50)) for outputs in (1.0, output_scale))
    assert [replace(turn, output_tokens=0) for turn in scaled] == [replace(turn, output_tokens=0) for turn in whole]
    for one, other in zip(whole, scaled, strict=True):
        assert abs(other.output_tokens - one.output_tokens * output_scale) <= 1


@given(seed=st.integers(), agent=st.integers(0, 1_000))
def test_an_agent_waits_for_its_sub_agent(seed: int, agent: int) -> None:
    """Two sessions are under way at most: one of an agent, and one of the sub-agent that it waits for."""
    open_sessions: dict[int, bool] = {}
    for turn in islice(turns_of(seed, agent), 300):
        open_sessions[turn.session] = turn.sub_agent
        assert len(open_sessions) <= 2
        assert turn.sub_agent or list(open_sessions) == [turn.session]
        if turn.last:
            del open_sessions[turn.session]


@given(seed=st.integers(), agent=st.integers(0, 1_000), scale=SCALES)
def test_the_same_seed_plans_the_same(seed: int, agent: int, scale: float) -> None:
    first, second, other = (list(islice(turns_of(one, agent, scale), 30)) for one in (seed, seed, seed + 1))
    assert first == second
    assert first != other
