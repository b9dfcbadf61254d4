"""The engine itself: bounded running requests, prefill, the pace of tokens, and true counters.

`Engine.generate` is the life of a request: it waits its turn (first come, first served), looks up the prefix cache,
takes its time to the first token and then yields tokens at their rate, counting each as it is generated. However it
is left, by its end, a cancellation or an error, the slot and the cache it held are given back.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass

from gateway.dev.engine.behaviour import Behaviour, Overrides
from gateway.dev.engine.errors import EngineError, unknown_model
from gateway.dev.engine.generation import Answer
from gateway.dev.engine.metrics import Counters, MetricsPage, VllmCollector
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.prefix_cache import PrefixCache, block_hashes
from gateway.dev.engine.records import Record, Records
from gateway.dev.engine.tokenizer import count_tokens

WAITING_MAX = 10_000
# Where nobody watches the tokens one by one, they are generated in strides of this time.
STRIDE_S = 0.01
# A stream without a pace lets others run every so many tokens.
YIELD_EVERY_TOKENS = 16


@dataclass(slots=True)
class Job:
    """One request as the engine sees it; `cached_tokens` is known once the prefill has begun."""

    prompt: bytes
    answers: Sequence[Answer]
    behaviour: Behaviour
    record: Record
    streamed: bool
    cache_salt: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __post_init__(self) -> None:
        self.prompt_tokens = count_tokens(self.prompt)


class Engine:
    """One simulated engine: options, behaviour, counters, slots and cache."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.behaviour = options.behaviour
        self.started_at = int(time.time())
        self.counters = Counters()
        self.records = Records()
        self.metrics = MetricsPage(VllmCollector(self.counters, options.models[0], options.kv_cache_tokens))
        self._cache = PrefixCache(options.kv_cache_tokens if options.prefix_caching else 0)
        self._slots = asyncio.Semaphore(options.max_num_seqs)

    def behaviour_for(self, *layers: Overrides | None) -> Behaviour:
        """Return how a request is answered, the later of `layers` winning over the process's own."""
        behaviour = self.behaviour
        for layer in layers:
            if layer is not None:
                behaviour = layer.over(behaviour, self.options.behaviour)
        return behaviour

    def check_model(self, name: str) -> None:
        """Raise EngineError 404 when `name` is not served here."""
        if name not in self.options.models:
            raise unknown_model(name)

    def admit(self, model: str, behaviour: Behaviour) -> None:
        """Refuse what must be refused before an answer starts.

        Raises EngineError: the one that was ordered, 404 for an unknown model, 503 when too many wait.
        """
        if behaviour.status is not None:
            raise EngineError(behaviour.status, "a simulated error", retry_after_s=behaviour.retry_after)
        self.check_model(model)
        if self.counters.waiting >= WAITING_MAX:
            raise EngineError(503, "too many requests are waiting")

    async def generate(self, job: Job) -> AsyncGenerator[range, None]:
        """Yield the positions of the tokens just generated, in order, from the first to the last of the longest answer.

        A stream gets one position at a time; otherwise as many as fell due. Position `p` means the p-th token of each
        answer that long. Must be closed (`contextlib.aclosing`).
        """
        async with self._slot():
            self.counters.kv_tokens += job.prompt_tokens
            try:
                await self._prefill(job)
                async for due in _pace(max(len(one.pieces) for one in job.answers), job):
                    self._count(job, sum(len(range(due.start, min(due.stop, len(one.pieces)))) for one in job.answers))
                    yield due
            finally:
                self.counters.kv_tokens -= job.prompt_tokens + job.generated_tokens

    async def embed(self, job: Job) -> None:
        """Take the time of a prefill for a job that generates nothing."""
        async with self._slot():
            await self._prefill(job)

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        counters = self.counters
        counters.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            counters.waiting -= 1
        counters.running += 1
        try:
            yield
        finally:
            counters.running -= 1
            self._slots.release()

    async def _prefill(self, job: Job) -> None:
        hashes = block_hashes(job.prompt, job.cache_salt) if self.options.prefix_caching else []
        job.cached_tokens = self._cache.cached_tokens(job.prompt, hashes)
        self.counters.prefix_cache_queries += job.prompt_tokens
        self.counters.prefix_cache_hits += job.cached_tokens
        if job.behaviour.ttft_ms > 0:
            await asyncio.sleep(job.behaviour.ttft_ms / 1000)
        self._cache.store(hashes)
        self.counters.prompt_tokens += job.prompt_tokens
        job.record.prompt_tokens = job.prompt_tokens

    def _count(self, job: Job, tokens: int) -> None:
        self.counters.generated_tokens += tokens
        self.counters.kv_tokens += tokens
        job.generated_tokens += tokens
        job.record.generated_tokens += tokens


async def _pace(length: int, job: Job) -> AsyncGenerator[range, None]:
    """Yield the positions below `length` as they fall due, the first at once.

    Due times are absolute, so a late wake-up does not slow the stream down.
    """
    rate, stride = job.behaviour.tokens_per_second, 1
    if not job.streamed:
        stride = max(1, int(rate * STRIDE_S)) if rate else length
    start_s = time.monotonic()
    for position in range(0, length, stride):
        stop = min(position + stride, length)
        # The last token of a stride is the one to wait for: the first token of all is due at 0.
        delay_s = (stop - 1) / rate - (time.monotonic() - start_s) if rate else 0.0
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        elif position % YIELD_EVERY_TOKENS == 0:
            await asyncio.sleep(0)
        yield range(position, stop)
