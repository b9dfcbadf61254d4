"""The engine itself: bounded running requests, prefill, the pace of tokens, and true counters.

`Engine.generate` is the life of a request: it waits for a slot and for memory, computes what the prefix cache does not
have, takes its time to the first token and then yields tokens at their rate, counting each as it is generated. However
it is left, by its end, a cancellation or an error, what it held is given back.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from gateway.dev.engine.behaviour import Behaviour, Ordered, Overrides
from gateway.dev.engine.counters import Counters, Samples
from gateway.dev.engine.errors import EngineError, unknown_model
from gateway.dev.engine.generation import Answer
from gateway.dev.engine.kv_cache import Allocation, KvCache, block_hashes
from gateway.dev.engine.options import EngineOptions
from gateway.dev.engine.records import Record, Records
from gateway.dev.engine.scheduler import Need, Scheduler
from gateway.dev.engine.tokenizer import count_tokens

# Where nobody watches the tokens one by one, they are generated in strides of this time.
STRIDE_S = 0.01
# A stream without a pace lets others run every so many tokens.
YIELD_EVERY_TOKENS = 16


@dataclass(slots=True)
class Job:
    """One request as the engine sees it; `cached_tokens` is known once the prefill has begun.

    `model` is the name that was asked for: a LoRA's has a cache of its own.
    """

    prompt: bytes
    answers: Sequence[Answer]
    behaviour: Behaviour
    record: Record
    streamed: bool
    cache_salt: str | None = None
    model: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __post_init__(self) -> None:
        self.prompt_tokens = count_tokens(self.prompt)


class Engine:
    """One simulated engine: options, behaviour, counters, slots and cache. `clock` tells monotonic seconds."""

    def __init__(self, options: EngineOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        self.ordered = Ordered(options.behaviour)
        self.started_at = int(time.time())
        self.counters = Counters()
        self.samples = Samples()
        self.metric_heads: dict[str, list[str]] = {}
        self.records = Records(options.bodies_kept_bytes, options.records_kept)
        self.cache = KvCache(options.kv_cache_tokens)
        self.scheduler = Scheduler(
            self.counters, self.cache, running_max=options.max_num_seqs, waiting_max=options.max_queued_requests
        )
        self._clock = clock

    def behaviour_for(self, *layers: Overrides | None) -> Behaviour:
        """Return how a request is answered, the later of `layers` winning over the process's own.

        To be asked once a request: what was ordered for the next few counts it.
        """
        behaviour = self.ordered.take()
        for layer in layers:
            if layer is not None:
                behaviour = layer.over(behaviour, self.options.behaviour)
        return behaviour

    def check_model(self, name: str) -> None:
        """Raise EngineError 404 when `name` is not served here."""
        if name not in self.options.models and name not in self.options.loras:
            raise unknown_model(name)

    def admit(self, model: str) -> None:
        """Refuse what must be refused before an answer starts.

        Raises EngineError: 404 for an unknown model, 503 when too many wait.
        """
        self.check_model(model)
        if self.scheduler.full:
            raise EngineError(503, "The request queue is full.")

    async def generate(self, job: Job) -> AsyncGenerator[range, None]:
        """Yield the positions of the tokens just generated, in order, from the first to the last of the longest answer.

        A stream gets one position at a time; otherwise as many as fell due. Position `p` means the p-th token of each
        answer that long. Must be closed (`contextlib.aclosing`).
        """
        async with self._running(job) as life:
            self.counters.kv_tokens += job.prompt_tokens
            try:
                await self._prefill(job, life)
                async for due in self._pace(max(len(one.pieces) for one in job.answers), job):
                    tokens = sum(len(range(due.start, min(due.stop, len(one.pieces)))) for one in job.answers)
                    self._count(job, life, tokens, len(due))
                    yield due
            finally:
                self.counters.kv_tokens -= job.prompt_tokens + job.generated_tokens

    async def embed(self, job: Job) -> None:
        """Take the time of a prefill for a job that generates nothing."""
        async with self._running(job) as life:
            await self._prefill(job, life)

    @contextlib.asynccontextmanager
    async def _running(self, job: Job) -> AsyncIterator["_Life"]:
        """Hold a slot and memory; sample the request when it ends by itself."""
        lora = job.model if job.model in self.options.loras else None
        hashes = block_hashes(job.prompt, (lora, job.cache_salt)) if self.options.prefix_caching else []
        arrived_s = self._clock()
        async with self.scheduler.running(Need(job.prompt_tokens, hashes, lora)) as allocation:
            started_s = self._clock()
            life = _Life(allocation, arrived_s, prefilled_s=started_s, last_s=started_s)
            yield life
            samples, now_s = self.samples, self._clock()
            samples.queue_s.observe(started_s - arrived_s)
            samples.running_s.observe(now_s - started_s)
            samples.prefill_s.observe(life.prefilled_s - started_s)
            samples.decode_s.observe(now_s - life.prefilled_s)
            samples.request_s.observe(now_s - arrived_s)
            samples.prompt_tokens.observe(job.prompt_tokens)
            samples.generated_tokens.observe(job.generated_tokens)

    async def _prefill(self, job: Job, life: "_Life") -> None:
        behaviour, counters = job.behaviour, self.counters
        if behaviour.prefill_tokens_per_second:
            async with self.scheduler.prefill_turn:
                uncached = self._look_up(job, life)
                await asyncio.sleep(uncached / behaviour.prefill_tokens_per_second)
                self.cache.store(life.allocation)
        else:
            uncached = self._look_up(job, life)
        if behaviour.ttft_ms > 0:
            await asyncio.sleep(behaviour.ttft_ms / 1000 * self._slowdown(job))
        self.cache.store(life.allocation)
        life.prefilled_s = life.last_s = self._clock()
        counters.prompt_tokens += job.prompt_tokens
        counters.prefilled_tokens += uncached
        job.record.prompt_tokens = job.prompt_tokens

    def _look_up(self, job: Job, life: "_Life") -> int:
        """Ask the cache and return how many prompt tokens are to be computed."""
        job.cached_tokens = self.cache.find(life.allocation)
        self.counters.prefix_cache_queries += job.prompt_tokens
        self.counters.prefix_cache_hits += job.cached_tokens
        return job.prompt_tokens - job.cached_tokens

    def _slowdown(self, job: Job) -> float:
        """Return how many times longer a step takes because of the other running requests."""
        return 1.0 + job.behaviour.load_slowdown * (self.counters.running - 1)

    def _count(self, job: Job, life: "_Life", tokens: int, steps: int) -> None:
        now_s = self._clock()
        if job.generated_tokens == 0:
            self.samples.first_token_s.observe(now_s - life.arrived_s)
            steps -= 1
        if steps:
            self.samples.token_s.observe((now_s - life.last_s) / steps, steps)
        life.last_s = now_s
        self.counters.generated_tokens += tokens
        self.counters.kv_tokens += tokens
        job.generated_tokens += tokens
        job.record.generated_tokens += tokens
        self.cache.grow(life.allocation, job.generated_tokens)

    async def _pace(self, length: int, job: Job) -> AsyncGenerator[range, None]:
        """Yield the positions below `length` as they fall due, the first at once.

        Due times follow from one another, so a late wake-up does not slow the stream down.
        """
        rate, stride = job.behaviour.tokens_per_second, 1
        if not job.streamed:
            stride = max(1, int(rate * STRIDE_S)) if rate else length
        due_s = self._clock()
        for position in range(0, length, stride):
            stop = min(position + stride, length)
            # The last token of a stride is the one to wait for: the first token of all is due at once.
            steps = stop - max(position, 1)
            if rate:
                due_s += steps * self._slowdown(job) / rate
            delay_s = due_s - self._clock() if rate else 0.0
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            elif position % YIELD_EVERY_TOKENS == 0:
                await asyncio.sleep(0)
            yield range(position, stop)


@dataclass(slots=True)
class _Life:
    """What a running request holds, and when it arrived, had its prompt computed and made its last token."""

    allocation: Allocation
    arrived_s: float
    prefilled_s: float
    last_s: float
