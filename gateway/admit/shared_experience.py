"""Shares what replicas learn of models through Redis, beside the requests and never on their way.

Every few seconds a replica joins its figures with those of all (`share_experience.lua`) and goes on from the result.
What others have learnt meanwhile counts for as much as a single learner would have kept of it after this replica's
lessons: shared' = mine + kept * (shared - base), where base is what was shared when this replica last looked. So many
replicas that learn the same at the same time do not overshoot. While Redis is away each learns for itself; a Redis
that has forgotten is told again by whoever knows.
"""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from gateway.admit.estimate import (
    BYTES_PER_TOKEN_MAX,
    BYTES_PER_TOKEN_MIN,
    OUTPUT_TOKENS_MAX,
    OUTPUT_TOKENS_MIN,
    TOKENS_PER_S_MAX,
    TOKENS_PER_S_MIN,
    Experience,
)
from gateway.admit.script import Script
from gateway.errors import LimiterUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.storage.redis_link import Command


INTERVAL_S = 10.0
MODELS_MAX = 100
"""How many are joined in one call."""

LESSONS_MAX = 1_000
KEPT_MS = 7 * 86_400_000


class RunsScripts(Protocol):
    """Redis, as far as it is needed here."""

    def call(self, script: Script, arguments: Command, /) -> asyncio.Future[Any]: ...


class _Figure(NamedTuple):
    """One figure of Experience: its fields there, and its bounds, on a logarithmic scale where it is learnt on one."""

    value: str
    lessons: str
    kept: str
    lowest: float
    highest: float
    logarithmic: bool = False

    def read(self, experience: Experience) -> float:
        return self.scaled(getattr(experience, self.value))

    def write(self, experience: Experience, value: float) -> None:
        plain = math.exp(min(value, self.scaled(self.highest))) if self.logarithmic else value
        setattr(experience, self.value, min(max(plain, self.lowest), self.highest))

    def scaled(self, value: float) -> float:
        return math.log(value) if self.logarithmic else value


_FIGURES = (
    _Figure("bytes_per_token", "prompts", "prompts_kept", BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX),
    _Figure("output_tokens", "outputs", "outputs_kept", OUTPUT_TOKENS_MIN, OUTPUT_TOKENS_MAX, logarithmic=True),
    _Figure("output_tokens_per_s", "speeds", "speeds_kept", TOKENS_PER_S_MIN, TOKENS_PER_S_MAX),
)


class _State(NamedTuple):
    """A figure at one moment."""

    value: float
    lessons: int
    kept: float = 1.0


_States = tuple[_State, ...]


def experience_key(model: str) -> str:
    """Return the Redis key of what is known of a model; all models live on one slot."""
    return f"pst:{{models}}:x:{model}"


class SharedExperience:
    """Joins the experience of this replica with that of the others."""

    def __init__(
        self, redis: RunsScripts, models: Callable[[], Iterable[str]], experience: Callable[[str], Experience]
    ) -> None:
        self._redis = redis
        self._models = models
        self._experience = experience
        self._script = Script.load("share_experience")
        self._beginning = _taken(Experience())
        self._shared: dict[str, _States] = {}
        """What was shared when this replica last looked, by model."""

    async def run(self) -> None:
        """Exchange now and then until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S * random.uniform(0.8, 1.2))  # noqa: S311 - spreads the replicas; no secret
            await self.exchange()

    async def exchange(self) -> None:
        """Join all models once. Redis being away, or a key broken by others, is no error: the rest is tried later."""
        models = sorted(self._models())
        self._shared = {model: self._shared[model] for model in models if model in self._shared}
        for start in range(0, len(models), MODELS_MAX):
            try:
                await self._join(models[start : start + MODELS_MAX])
            except LimiterUnavailable:
                continue

    async def _join(self, models: Sequence[str]) -> None:
        sent = {model: _taken(self._experience(model)) for model in models}
        keys = [experience_key(model) for model in models]
        asked = [self._told(model, states) for model, states in sent.items()]
        try:
            answer = await self._redis.call(
                self._script, (len(keys), *keys, msgspec.json.encode(asked), LESSONS_MAX, KEPT_MS)
            )
        except BaseException:
            for model, states in sent.items():
                _put_back(self._experience(model), states)
            raise
        for (model, states), joined in zip(sent.items(), answer, strict=True):
            shared = tuple(
                _State(float(value), int(lessons)) for value, lessons in zip(joined[::2], joined[1::2], strict=True)
            )
            _adopt(self._experience(model), states, shared)
            self._shared[model] = shared

    def _told(self, model: str, states: _States) -> list[list[str | float]]:
        before = self._shared.get(model, self._beginning)
        return [
            [
                figure.value,
                figure.scaled(figure.lowest),
                figure.scaled(figure.highest),
                base.value,
                state.value,
                state.kept,
                max(state.lessons - base.lessons, 0),
                state.lessons,
            ]
            for figure, base, state in zip(_FIGURES, before, states, strict=True)
        ]


def _taken(experience: Experience) -> _States:
    """Return the figures, and have what is kept of them counted from now on."""
    states = []
    for figure in _FIGURES:
        kept: float = getattr(experience, figure.kept)
        states.append(_State(figure.read(experience), getattr(experience, figure.lessons), kept))
        setattr(experience, figure.kept, 1.0)
    return tuple(states)


def _put_back(experience: Experience, states: _States) -> None:
    """Nothing was shared: count from where it was counted before."""
    for figure, state in zip(_FIGURES, states, strict=True):
        setattr(experience, figure.kept, getattr(experience, figure.kept) * state.kept)


def _adopt(experience: Experience, sent: _States, shared: _States) -> None:
    """Go on from what is shared, with what was learnt since `sent`."""
    for figure, before, now in zip(_FIGURES, sent, shared, strict=True):
        kept: float = getattr(experience, figure.kept)
        figure.write(experience, figure.read(experience) + kept * (now.value - before.value))
        setattr(experience, figure.lessons, now.lessons + getattr(experience, figure.lessons) - before.lessons)
