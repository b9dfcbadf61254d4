"""What load does to an engine, on a clock that jumps: pace, prefills one after the other, the queue, the memory."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from gateway.dev.engine.behaviour import Behaviour
from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.generation import Wanted, answer
from gateway.dev.engine.kv_cache import BLOCK_TOKENS
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.records import Record
from gateway.dev.engine.tokenizer import TOKEN_BYTES
from tests.support.virtual_time import run_virtually

FLAT_OUT = Behaviour(ttft_ms=0, tokens_per_second=0)
# The figures of an engine for coding agents: 15 s for a prompt of 64K tokens that is not cached, 0.1 s for one that is.
AGENTIC = Behaviour(ttft_ms=100, tokens_per_second=0, prefill_tokens_per_second=4_400)


def job(prompt: str, behaviour: Behaviour, *, tokens: int = 1, model: str | None = None, streamed: bool = True) -> Job:
    said = [answer(Wanted(seed=0, max_tokens=100_000, output_tokens=tokens))]
    return Job(prompt.encode(), said, behaviour, Record("POST", "/", [], b""), streamed, model=model)


def prompt_of(letter: str, tokens: int) -> str:
    return letter * tokens * TOKEN_BYTES


async def run(engine: Engine, one: Job) -> list[float]:
    """Return when each step of a request came, in virtual seconds."""
    clock = asyncio.get_running_loop().time
    async with contextlib.aclosing(engine.generate(one)) as tokens:
        return [clock() async for _ in tokens]


async def engine_of(options: EngineOptions | None = None) -> Engine:
    return Engine(options or EngineOptions(), clock=asyncio.get_running_loop().time)


def test_a_miss_of_64k_tokens_costs_15_s_and_a_hit_a_tenth_of_a_second() -> None:
    async def scenario() -> tuple[float, float]:
        engine, clock = await engine_of(), asyncio.get_running_loop().time
        [missed_s] = await run(engine, job(prompt_of("a", 65_536), AGENTIC))
        asked_s = clock()
        [hit_s] = await run(engine, job(prompt_of("a", 65_536), AGENTIC))
        return missed_s, hit_s - asked_s

    missed_s, hit_s = run_virtually(scenario())
    assert missed_s == pytest.approx(15.0, rel=0.01)
    assert hit_s == pytest.approx(0.1, rel=0.05)


def test_prefills_take_their_turn_and_tokens_go_on_meanwhile() -> None:
    behaviour = Behaviour(ttft_ms=0, tokens_per_second=1, prefill_tokens_per_second=1_000)

    async def scenario() -> list[list[float]]:
        engine = await engine_of()
        jobs = [job(prompt_of("a", 1_000), behaviour, tokens=4), job(prompt_of("b", 5_000), behaviour)]
        # The same prompt as the first one's: when its turn comes, the cache has it.
        jobs.append(job(prompt_of("a", 1_000), behaviour))
        return await asyncio.gather(*(run(engine, one) for one in jobs))

    first, large, repeated = run_virtually(scenario())
    assert first == pytest.approx([1, 2, 3, 4])
    assert large == pytest.approx([6])
    assert repeated == pytest.approx([6 + (1_000 - 992) / 1_000])


@pytest.mark.parametrize("streamed", [True, False])
def test_streams_slow_one_another_down_and_speed_up_when_one_ends(*, streamed: bool) -> None:
    behaviour = Behaviour(ttft_ms=100, tokens_per_second=10, load_slowdown=0.5)

    async def scenario() -> list[list[float]]:
        engine = await engine_of()
        lengths = (3, 5)
        jobs = [job(str(tokens), behaviour, tokens=tokens, streamed=streamed) for tokens in lengths]
        return await asyncio.gather(*(run(engine, one) for one in jobs))

    short, long = run_virtually(scenario())
    # Alone a step takes 0.1 s, with another stream 0.15 s: the first one began before the second came.
    assert short == pytest.approx([0.1, 0.25, 0.4])
    assert long == pytest.approx([0.15, 0.3, 0.45, 0.55, 0.65])


def test_alone_a_stream_has_its_whole_rate() -> None:
    behaviour = Behaviour(ttft_ms=20, tokens_per_second=200, load_slowdown=9)

    async def scenario() -> list[float]:
        return await run(await engine_of(), job("hello", behaviour, tokens=4))

    assert run_virtually(scenario()) == pytest.approx([0.02, 0.025, 0.03, 0.035])


def test_who_does_not_fit_the_memory_waits_and_so_do_those_behind() -> None:
    """Two prompts of half the memory and a bit: one at a time, and a small one does not overtake."""
    options = EngineOptions(kv_cache_tokens=10 * BLOCK_TOKENS, prefix_caching=False)

    async def scenario() -> None:
        engine = await engine_of(options)
        first = engine.generate(job(prompt_of("a", 6 * BLOCK_TOKENS), FLAT_OUT, tokens=3))
        await anext(first)
        assert engine.cache.held_blocks == 7, "the prompt and a block for what it says"
        order: list[str] = []

        async def later(letter: str, tokens: int) -> None:
            await run(engine, job(prompt_of(letter, tokens), FLAT_OUT))
            order.append(letter)

        waiting = [
            asyncio.create_task(later(letter, blocks * BLOCK_TOKENS))
            for letter, blocks in (("b", 6), ("c", 1), ("d", 1))
        ]
        await asyncio.sleep(0)
        assert (engine.counters.running, engine.counters.waiting) == (1, 3)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert engine.counters.waiting == 0, "who hung up leaves at once, and those behind fit"
        await asyncio.gather(*waiting[1:])
        await first.aclose()
        assert sorted(order) == ["c", "d"]
        assert (engine.cache.held_blocks, engine.counters.running) == (0, 0)

    run_virtually(scenario())


def test_a_turn_that_comes_while_it_is_cancelled_is_passed_on() -> None:
    async def scenario() -> None:
        engine = await engine_of(replace(EngineOptions(), max_num_seqs=1))
        holder = engine.generate(job("a", FLAT_OUT, tokens=2))
        await anext(holder)
        cancelled, next_one = (asyncio.create_task(run(engine, job(letter, FLAT_OUT))) for letter in "bc")
        await asyncio.sleep(0)
        assert engine.counters.waiting == 2
        # In one turn of the loop: whichever comes first, the slot must not be lost.
        await holder.aclose()
        cancelled.cancel()
        assert len(await next_one) == 1
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        holder = engine.generate(job("a", FLAT_OUT, tokens=2))
        await anext(holder)
        cancelled, next_one = (asyncio.create_task(run(engine, job(letter, FLAT_OUT))) for letter in "bc")
        await asyncio.sleep(0)
        cancelled.cancel()
        await holder.aclose()
        assert len(await next_one) == 1
        assert (engine.counters.running, engine.counters.waiting) == (0, 0)

    run_virtually(scenario())


@pytest.mark.parametrize("bound", [0, 1, 3])
def test_the_queue_is_full_at_its_bound(bound: int) -> None:
    async def scenario() -> None:
        engine = await engine_of(replace(EngineOptions(), max_num_seqs=1, max_queued_requests=bound))
        full = [engine.scheduler.full]
        holder = engine.generate(job("a", FLAT_OUT, tokens=2))
        await anext(holder)
        waiting = []
        for _ in range(bound):
            full.append(engine.scheduler.full)
            waiting.append(asyncio.create_task(run(engine, job("b", FLAT_OUT))))
            await asyncio.sleep(0)
        full.append(engine.scheduler.full)
        await holder.aclose()
        await asyncio.gather(*waiting)
        assert full == [False] * (bound + 1) + [True]
        assert not engine.scheduler.full

    run_virtually(scenario())


def test_a_lora_has_a_cache_of_its_own_and_shows_while_it_runs_or_waits() -> None:
    async def scenario() -> list[int]:
        engine = await engine_of(EngineOptions(models=("base",), loras=("one", "two"), max_num_seqs=1))
        jobs = [job(prompt_of("a", 100), FLAT_OUT, model=model, tokens=2) for model in ("base", "one", "base", "one")]
        for one in jobs:
            await run(engine, one)
        running = engine.generate(job("b", FLAT_OUT, model="one", tokens=2))
        await anext(running)
        waiting = asyncio.create_task(run(engine, job("c", FLAT_OUT, model="two")))
        await asyncio.sleep(0)
        assert (engine.scheduler.running_loras["one"], engine.scheduler.waiting_loras["two"]) == (1, 1)
        await running.aclose()
        await waiting
        assert not any([*engine.scheduler.running_loras.values(), *engine.scheduler.waiting_loras.values()])
        return [one.cached_tokens for one in jobs]

    assert run_virtually(scenario()) == [0, 0, 96, 96]


def test_requests_are_sampled_when_they_end_by_themselves() -> None:
    behaviour = Behaviour(ttft_ms=500, tokens_per_second=10, prefill_tokens_per_second=100)

    async def scenario() -> Engine:
        engine = await engine_of(replace(EngineOptions(), max_num_seqs=1))
        await asyncio.gather(*(run(engine, job(prompt_of(letter, 100), behaviour, tokens=11)) for letter in "ab"))
        cut = engine.generate(job("c", FLAT_OUT, tokens=5))
        await anext(cut)
        await cut.aclose()
        return engine

    samples = run_virtually(scenario()).samples
    # Each: 1 s of prefill and 0.5 s to the first token, then 10 tokens at 0.1 s; the second waits 2.5 s for the first.
    times = (samples.queue_s, samples.prefill_s, samples.decode_s, samples.request_s)
    assert [one.count for one in times] == [2, 2, 2, 2]
    assert [one.total for one in times] == pytest.approx([2.5, 3.0, 2.0, 2.5 + 5.0])
    # The one that was cut had its first token.
    assert [samples.first_token_s.count, samples.token_s.count] == [3, 20]
    assert [samples.first_token_s.total, samples.token_s.total] == pytest.approx([1.5 + 4.0, 2.0])
    assert (samples.prompt_tokens.total, samples.generated_tokens.total) == (200, 22)
