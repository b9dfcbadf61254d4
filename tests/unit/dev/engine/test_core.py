"""The engine without its server: turns, pace, counters, and what a cancelled request gives back."""

import asyncio
import contextlib
from dataclasses import replace

import msgspec
import pytest

from gateway.dev.engine.behaviour import Behaviour
from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.generation import Wanted, answer
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.records import BODY_KEPT_BYTES_MAX, RECORDS_KEPT, Record, Records

FLAT_OUT = Behaviour(ttft_ms=0, tokens_per_second=0)
PROMPT = b"p" * 400


def job(behaviour: Behaviour = FLAT_OUT, *, tokens: int = 10, streamed: bool = True, choices: int = 1) -> Job:
    said = [answer(Wanted(seed=seed, max_tokens=1000, output_tokens=tokens + seed)) for seed in range(choices)]
    return Job(PROMPT, said, behaviour, Record("POST", "/", [], b""), streamed)


async def run(engine: Engine, one: Job) -> list[int]:
    async with contextlib.aclosing(engine.generate(one)) as tokens:
        return [position async for due in tokens for position in due]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("rate", [0, 5_000, 20_000])
async def test_every_token_comes_once_in_order_and_is_counted(rate: float, *, streamed: bool) -> None:
    engine = Engine(EngineOptions())
    one = job(msgspec.structs.replace(FLAT_OUT, tokens_per_second=rate), tokens=50, streamed=streamed, choices=2)
    assert await run(engine, one) == list(range(51))
    assert one.generated_tokens == one.record.generated_tokens == engine.counters.generated_tokens == 101
    assert engine.counters.prompt_tokens == 100
    assert engine.counters.kv_tokens == engine.counters.running == 0


async def test_a_repeated_prompt_is_cached_unless_caching_is_off() -> None:
    for options, cached in ((EngineOptions(), 96), (EngineOptions(prefix_caching=False), 0)):
        engine = Engine(options)
        first, second = job(), job()
        await run(engine, first)
        await run(engine, second)
        assert (first.cached_tokens, second.cached_tokens) == (0, cached)
        assert (engine.counters.prefix_cache_queries, engine.counters.prefix_cache_hits) == (200, cached)


async def test_more_than_max_num_seqs_wait_their_turn_in_order() -> None:
    engine = Engine(replace(EngineOptions(), max_num_seqs=1))
    order: list[int] = []

    async def one(name: int) -> None:
        await run(engine, job())
        order.append(name)

    holder = engine.generate(job())
    await anext(holder)
    waiting = [asyncio.create_task(one(name)) for name in range(3)]
    await asyncio.sleep(0)
    assert (engine.counters.running, engine.counters.waiting) == (1, 3)
    await holder.aclose()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert (engine.counters.running, engine.counters.waiting) == (0, 0)


@pytest.mark.parametrize("where", ["waiting", "prefill", "generating"])
async def test_a_cancelled_request_gives_back_what_it_held(where: str) -> None:
    engine = Engine(replace(EngineOptions(), max_num_seqs=1))
    slow = Behaviour(ttft_ms=60_000) if where == "prefill" else Behaviour(ttft_ms=0, tokens_per_second=0.001)
    holder = engine.generate(job())
    if where == "waiting":
        await anext(holder)
    task = asyncio.create_task(run(engine, one := job(slow)))
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await holder.aclose()
    generated = {"waiting": 0, "prefill": 0, "generating": 1}[where]
    assert one.generated_tokens == generated
    assert (engine.counters.running, engine.counters.waiting, engine.counters.kv_tokens) == (0, 0, 0)
    assert await run(engine, job()) == list(range(10)), "the slot is free again"


def test_the_last_requests_are_remembered_with_what_fits() -> None:
    records = Records(BODY_KEPT_BYTES_MAX)
    for number in range(RECORDS_KEPT + 1):
        records.add(Record("POST", f"/{number}", [(b"a", b"1"), (b"a", b"2")], b'{"n": %d}' % number))
    shown = records.shown()
    assert (len(shown), shown[0]["path"], shown[0]["body"]) == (RECORDS_KEPT, "/1", {"n": 1})
    assert shown[0]["headers"] == {"a": "1, 2"}
    long = Record("POST", "/", [], b"x" * (BODY_KEPT_BYTES_MAX + 1)).shown()
    assert (long["body"], long["body_bytes"]) == (None, BODY_KEPT_BYTES_MAX + 1)
    assert Record("POST", "/", [], b"\xff").shown()["body"] == "\ufffd"


def test_the_oldest_bodies_give_way_when_all_together_are_too_long() -> None:
    records = Records(bytes_max=20)
    for number in range(RECORDS_KEPT + 2):
        records.add(Record("POST", f"/{number}", [], b"%08d" % number))
    bodies = [one["body"] for one in records.shown()]
    assert bodies == [None] * (RECORDS_KEPT - 2) + ["00000064", "00000065"]
    records.add(Record("POST", "/long", [], b"x" * 21))
    assert [one["body"] for one in records.shown()] == [None] * RECORDS_KEPT
    records.add(Record("POST", "/next", [], b"y" * 20))
    assert records.shown()[-1]["body"] == "y" * 20


def test_as_many_requests_are_remembered_as_were_ordered() -> None:
    records = Records(BODY_KEPT_BYTES_MAX, kept=RECORDS_KEPT + 1)
    for number in range(RECORDS_KEPT + 2):
        records.add(Record("POST", f"/{number}", [], b""))
    assert [one["path"] for one in records.shown()] == [f"/{number}" for number in range(1, RECORDS_KEPT + 2)]
