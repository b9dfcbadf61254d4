"""What agents send: who, how much of it again, how long the answer, and how soon after the last one. Pure and seeded.

The figures are those of a published trace of 78,099 requests of coding agents: input p50 195 K and p90 521 K tokens,
output p50 317, 96 % of turns reuse at least 90 % of their input, 2 s between turns, more than half of the requests come
from sub-agents. A session is a run of turns, 27 on average: its first turn reuses only what all sessions share, so 4 %
of turns reuse little; each later one adds a few percent to all that was there. An agent stops at some turns for a
sub-agent, which is a session of its own, and goes on when that is done.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

INPUT_TOKENS_P50, INPUT_TOKENS_P90 = 195_000, 521_000
OUTPUT_TOKENS_P50 = 317
GAP_S_P50 = 2.0
SESSION_TURNS_MEAN = 27
REUSED_SHARE, REUSING_TURNS_SHARE = 0.9, 0.96
SUB_AGENT_SHARE: Final = 0.56

INPUT_TOKENS_MAX = 1_000_000
OUTPUT_TOKENS_MAX = 8_192
SHARED_TOKENS = 16_000
"""System prompt and tools, the same for every session."""
MESSAGE_TOKENS = 16
"""What a message of the least text takes: role, call, marks."""

# A session begins log-normally large and grows; these make the sizes of all turns together have the figures above.
_FIRST_TOKENS_P50, _FIRST_SPREAD = 119_000, 0.615
_GROWTH_MIN, _GROWTH_MAX = 0.005, 0.045
# Nothing is published about the spread of these two; a third of what is asked for twice as long, and no lockstep.
_OUTPUT_SPREAD, _GAP_SPREAD = 1.0, 0.5
# A sub-agent has as many turns as its parent, so this many of them a turn make their share of all turns.
_SUB_AGENTS_PER_TURN = SUB_AGENT_SHARE / (1 - SUB_AGENT_SHARE) / SESSION_TURNS_MEAN


@dataclass(frozen=True, slots=True)
class Turn:
    """One request.

    `session` is its number within the agent's plan; `first` says that it begins that session. `input_tokens` are all
    tokens of the prompt, `reused_tokens` those that a server has seen before. `output_tokens` are asked for,
    `kept_tokens` is the size of the answer in the next prompt. `gap_s`: how long before it is sent, counted from the
    end of the agent's last answer.
    """

    session: int
    first: bool
    last: bool
    sub_agent: bool
    input_tokens: int
    reused_tokens: int
    output_tokens: int
    kept_tokens: int
    gap_s: float


def turns_of(seed: int, agent: int, scale: float = 1.0, output_scale: float = 1.0) -> Iterator[Turn]:
    """Yield the turns of one agent, its sub-agents' among them, without end.

    Prompts are multiplied by `scale`, the answers that are asked for by `output_scale`. A prompt keeps of an answer
    what is due at its own scale: so prompts grow and repeat as in the trace, whatever is asked for.
    """
    scales = scale, output_scale
    dice = random.Random(f"{seed}/{agent}")  # noqa: S311 - the sizes of made-up traffic are no secret
    # A short replay is like a long one only when it begins in the midst of the work: some agents wait for a
    # sub-agent, and their first conversations have grown already.
    sessions, grown_turns = 0, _turns(dice)
    if dice.random() < SUB_AGENT_SHARE:
        sessions += 1
        yield from _session(dice, sessions, scales, sub_agent=True, grown_turns=_turns(dice))
    while True:
        sessions += 1
        for turn in _session(dice, sessions, scales, sub_agent=False, grown_turns=grown_turns):
            yield turn
            if not turn.last and dice.random() < _SUB_AGENTS_PER_TURN:
                sessions += 1
                yield from _session(dice, sessions, scales, sub_agent=True)
        grown_turns = 0


def shared_tokens(scale: float) -> int:
    """Return how many tokens of system prompt and tools all sessions have in common."""
    return max(1, round(SHARED_TOKENS * scale))


def _turns(dice: random.Random) -> int:
    """Return how many turns a session goes on after one of its turns: as many on average, whichever turn that is."""
    return int(math.log(1 - dice.random()) / math.log(1 - 1 / SESSION_TURNS_MEAN))


def _session(
    dice: random.Random, number: int, scales: tuple[float, float], *, sub_agent: bool, grown_turns: int = 0
) -> Iterator[Turn]:
    """Yield the turns of one session: at least one, each larger than the one before it.

    The first one has grown by so many turns that nobody sees.
    """
    scale, output_scale = scales
    size_max, shared = INPUT_TOKENS_MAX * scale, shared_tokens(scale)
    size = max(_first_tokens(dice, scale), shared + MESSAGE_TOKENS)
    for _ in range(grown_turns):
        size = min(size + _added_tokens(dice, size, 0), round(size_max))
    count, reused = 1 + _turns(dice), shared
    for position in range(count):
        output = min(dice.lognormvariate(math.log(OUTPUT_TOKENS_P50), _OUTPUT_SPREAD), OUTPUT_TOKENS_MAX)
        asked, kept = max(1, round(output * output_scale)), max(1, round(output * scale))
        added = _added_tokens(dice, size, kept)
        last = position == count - 1 or size + added > size_max
        gap_s = dice.lognormvariate(math.log(GAP_S_P50), _GAP_SPREAD)
        yield Turn(number, position == 0, last, sub_agent, size, reused, asked, kept, gap_s)
        if last:
            return
        size, reused = size + added, size


def _added_tokens(dice: random.Random, size: int, output: int) -> int:
    """Return by how much a conversation grows from one turn to the next: the answer, and what follows it."""
    return max(round(size * dice.uniform(_GROWTH_MIN, _GROWTH_MAX)), output + 2 * MESSAGE_TOKENS)


def _first_tokens(dice: random.Random, scale: float) -> int:
    tokens = dice.lognormvariate(math.log(_FIRST_TOKENS_P50), _FIRST_SPREAD)
    return round(min(tokens, INPUT_TOKENS_MAX) * scale)
