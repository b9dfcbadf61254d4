"""What replicas learn, joined in a real Redis: who comes later begins with it, and nothing overshoots or is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import redis

from gateway.admit.estimate import Experience
from gateway.admit.redis_single import RedisSingle
from gateway.admit.shared_experience import MODELS_MAX, SharedExperience, experience_key
from gateway.observe.metrics import Metrics
from gateway.storage.redis import open_redis
from tests.support.frozen import frozen

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from gateway.admit.script import Script
    from gateway.admit.shared_experience import RunsScripts
    from gateway.dev.children import RunningServer
    from gateway.storage.redis_link import Command

PATIENCE_S = 10.0
OWN = ("bytes_per_token", "output_tokens", "output_tokens_per_s")


class Replica:
    """What one replica has learnt, and its part in sharing it."""

    def __init__(self, runner: RedisSingle, *models: str) -> None:
        self.known: dict[str, Experience] = {}
        self._models = models
        self.shared = self.sharing(runner)

    def sharing(self, runner: RunsScripts) -> SharedExperience:
        """Return what shares its experience through `runner`."""
        return SharedExperience(runner, lambda: self._models, self.experience)

    def experience(self, model: str = "m") -> Experience:
        """Return what it knows of a model."""
        return self.known.setdefault(model, Experience())

    def learn(self, times: int, *, ratio: float, completion: int = 100) -> None:
        """Take in requests whose prompts have `ratio` bytes a token."""
        for _ in range(times):
            self.experience().learn(int(100 * ratio), 100, completion, 1.0)

    def figures(self, model: str = "m") -> list[float]:
        """Return what it expects of a model."""
        return [getattr(self.experience(model), name) for name in OWN]


@pytest.fixture
async def runner(redis_url: str) -> AsyncIterator[RedisSingle]:
    """Runs scripts on an empty Redis."""
    client = open_redis(redis_url, PATIENCE_S)
    runner = RedisSingle(client, timeout_s=PATIENCE_S, metrics=Metrics())
    yield runner
    await runner.close()
    await client.aclose()


@pytest.fixture
def replica(runner: RedisSingle) -> Callable[[], Replica]:
    """Makes replicas that serve the model `m`."""
    return lambda: Replica(runner, "m")


async def test_a_fresh_replica_begins_with_what_all_know(replica: Callable[[], Replica]) -> None:
    old, fresh = replica(), replica()
    old.learn(200, ratio=3.0, completion=2000)
    await old.shared.exchange()
    await fresh.shared.exchange()
    assert fresh.figures() == pytest.approx(old.figures())
    known = fresh.experience()
    assert known.prompts == known.outputs == known.speeds == 200
    fresh.learn(1, ratio=8.0)
    assert known.bytes_per_token == pytest.approx(3.25, abs=0.02), "one more lesson weighs as one of many"


async def test_one_replica_alone_keeps_what_it_has_learnt(replica: Callable[[], Replica]) -> None:
    alone = replica()
    for times in (1, 5, 0, 30):
        alone.learn(times, ratio=2.5)
        before = replace(alone.experience())
        await alone.shared.exchange()
        assert alone.figures() == pytest.approx([getattr(before, name) for name in OWN])
        assert alone.experience().prompts == before.prompts


async def test_replicas_that_learn_different_things_meet_between(replica: Callable[[], Replica]) -> None:
    low, high = replica(), replica()
    for _ in range(30):
        low.learn(5, ratio=2.0)
        high.learn(5, ratio=6.0)
        for each in (low, high, low):
            await each.shared.exchange()
    assert low.figures() == pytest.approx(high.figures(), rel=0.2)
    assert 3.0 < low.experience().bytes_per_token < 5.0


async def test_many_that_learn_the_same_at_once_do_not_overshoot(replica: Callable[[], Replica]) -> None:
    replicas = [replica() for _ in range(8)]
    for _ in range(4):
        for each in replicas:
            each.learn(40, ratio=3.0, completion=3000)
        for each in replicas:
            await each.shared.exchange()
        for each in replicas:
            assert each.experience().bytes_per_token == pytest.approx(3.0, abs=0.15)
            assert each.experience().output_tokens < 3500
    assert replicas[0].experience().output_tokens > 2500


async def test_what_redis_forgets_it_is_told_again(replica: Callable[[], Replica], redis_url: str) -> None:
    old, fresh = replica(), replica()
    old.learn(100, ratio=3.0)
    await old.shared.exchange()
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    await old.shared.exchange()
    await fresh.shared.exchange()
    assert fresh.figures() == pytest.approx(old.figures())
    assert fresh.experience().prompts == 100


@pytest.mark.parametrize("broken", [("set", "text"), ("hset", "nan"), ("hset", "1e300"), ("hset", "-5"), ("hset", "x")])
async def test_what_others_broke_there_is_begun_anew(
    replica: Callable[[], Replica], redis_url: str, broken: tuple[str, str]
) -> None:
    old = replica()
    old.learn(100, ratio=3.0)
    with redis.Redis.from_url(redis_url) as client:
        if broken[0] == "set":
            client.set(experience_key("m"), broken[1])
        else:
            client.hset(experience_key("m"), mapping={name + end: broken[1] for name in OWN for end in ("", ":n")})
        before = old.figures()
        await old.shared.exchange()
        assert client.ttl(experience_key("m")) > 0
    fresh = replica()
    await fresh.shared.exchange()
    assert fresh.figures() == pytest.approx(before)
    assert old.figures() == pytest.approx(before)


async def test_lessons_during_the_exchange_count(runner: RedisSingle, replica: Callable[[], Replica]) -> None:
    other, late = replica(), replica()
    other.learn(100, ratio=3.0)
    await other.shared.exchange()

    class Meanwhile:
        def call(self, script: Script, arguments: Command, /) -> asyncio.Future[Any]:
            answer = runner.call(script, arguments)
            late.learn(1, ratio=8.0)
            return answer

    await late.sharing(Meanwhile()).exchange()
    known = late.experience()
    assert known.prompts == 101
    assert 3.0 < known.bytes_per_token < 8.0
    await late.shared.exchange()
    await other.shared.exchange()
    assert other.experience().prompts >= 101


async def test_while_redis_is_away_each_learns_for_itself(own_redis: RunningServer) -> None:
    client = open_redis(own_redis.address, PATIENCE_S)
    runner = RedisSingle(client, timeout_s=0.05, metrics=Metrics())
    one, other = Replica(runner, "m"), Replica(runner, "m")
    one.learn(50, ratio=3.0)
    before = one.figures()
    with frozen(own_redis):
        await one.shared.exchange()
        assert one.figures() == before
        one.learn(50, ratio=3.0)
    patient = RedisSingle(client, timeout_s=PATIENCE_S, metrics=Metrics())
    for each in (one, other):
        await each.sharing(patient).exchange()
    assert other.figures() == pytest.approx(one.figures())
    await runner.close()
    await patient.close()
    await client.aclose()


async def test_many_models_are_joined_a_part_at_a_time(runner: RedisSingle) -> None:
    models = [f"m{number}" for number in range(2 * MODELS_MAX + 1)]
    one, other = Replica(runner, *models), Replica(runner, *models)
    for model in models:
        one.experience(model).learn(300, 100, 100, 1.0)
    await one.shared.exchange()
    await other.shared.exchange()
    assert [other.figures(model) for model in models] == [pytest.approx(one.figures(model)) for model in models]
