"""Who runs and who waits: bounded running requests, memory for their prompts, first come, first served.

As in vLLM, the request at the head of the queue waits for a slot and for room in the KV cache, and those behind it
wait for it. Prefills then share the machine one after the other, so that a large miss makes others wait.
"""

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from gateway.dev.engine.counters import Counters
from gateway.dev.engine.kv_cache import Allocation, KvCache


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for before it starts; `lora` names its adapter."""

    prompt_tokens: int
    hashes: Sequence[int]
    lora: str | None


class Scheduler:
    """Slots, the queue for them, and the turn to compute a prompt."""

    def __init__(self, counters: Counters, cache: KvCache, *, running_max: int, waiting_max: int) -> None:
        self.prefill_turn = asyncio.Lock()
        self.running_loras: Counter[str] = Counter()
        self.waiting_loras: Counter[str] = Counter()
        self._counters = counters
        self._cache = cache
        self._running_max = running_max
        self._waiting_max = waiting_max
        self._queue: OrderedDict[asyncio.Future[Allocation], Need] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether one more request would be one too many in the queue."""
        waits = bool(self._queue) or self._counters.running >= self._running_max
        return waits and len(self._queue) >= self._waiting_max

    @contextlib.asynccontextmanager
    async def running(self, need: Need) -> AsyncIterator[Allocation]:
        """Wait for a turn and hold it, with the memory for the prompt. A request that is cancelled leaves the queue."""
        allocation = await self._turn(need)
        try:
            yield allocation
        finally:
            self._end(need, allocation)

    async def _turn(self, need: Need) -> Allocation:
        if not self._queue and (allocation := self._start(need)) is not None:
            return allocation
        turn: asyncio.Future[Allocation] = asyncio.get_running_loop().create_future()
        self._queue[turn] = need
        self._counters.waiting += 1
        _count(self.waiting_loras, need.lora, 1)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._leave(turn, need)
                self._start_waiting()
            elif not turn.cancelled():
                # Its turn had come in the moment in which it was cancelled.
                self._end(need, turn.result())
            raise

    def _start(self, need: Need) -> Allocation | None:
        if self._counters.running >= self._running_max:
            return None
        allocation = self._cache.allocate(need.prompt_tokens, need.hashes)
        if allocation is not None:
            self._counters.running += 1
            _count(self.running_loras, need.lora, 1)
        return allocation

    def _start_waiting(self) -> None:
        while self._queue:
            turn, need = next(iter(self._queue.items()))
            if turn.cancelled():
                self._leave(turn, need)
                continue
            allocation = self._start(need)
            if allocation is None:
                return
            self._leave(turn, need)
            turn.set_result(allocation)

    def _leave(self, turn: asyncio.Future[Allocation], need: Need) -> None:
        del self._queue[turn]
        self._counters.waiting -= 1
        _count(self.waiting_loras, need.lora, -1)

    def _end(self, need: Need, allocation: Allocation) -> None:
        self._cache.release(allocation)
        self._counters.running -= 1
        _count(self.running_loras, need.lora, -1)
        self._start_waiting()


def _count(loras: Counter[str], name: str | None, change: int) -> None:
    if name is not None:
        loras[name] += change
