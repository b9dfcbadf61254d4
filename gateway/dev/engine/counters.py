"""What one engine counts: plain numbers, counted where the thing happens and read when somebody asks.

A token costs an addition, a histogram's sample a search in a short list. `/metrics` and `/sim/counters` read the same
numbers.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

FINISHED_REASONS = ("stop", "length", "abort", "error")
# The bounds that vLLM's histograms have, in seconds.
FIRST_TOKEN_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TOKEN_BOUNDS_S = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
REQUEST_BOUNDS_S = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKENS_BOUNDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0)


@dataclass(slots=True)
class Counters:
    """What one engine has done since it started, and what it does now.

    `received`: inference requests with a readable body. Each ends as one of `finished`, `failed` (answered with an
    error, or reset by order) and `aborted` (the client hung up). `running` and `waiting` are requests now;
    `kv_tokens` what the running ones hold. `generated_tokens` counts tokens when they are generated, `prompt_tokens`
    when the prefill is done; `prefilled_tokens` are those of them that had to be computed.
    """

    received: int = 0
    finished: int = 0
    failed: int = 0
    aborted: int = 0
    running: int = 0
    waiting: int = 0
    kv_tokens: int = 0
    prompt_tokens: int = 0
    prefilled_tokens: int = 0
    generated_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    finished_reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISHED_REASONS, 0))


class Histogram:
    """Samples counted by upper bound; the last of `bounds` is infinite."""

    __slots__ = ("_buckets", "bounds", "count", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = (*bounds, float("inf"))
        self._buckets = [0] * len(self.bounds)
        self.count = 0
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a sample, as if it came `times` times."""
        self._buckets[bisect_left(self.bounds, value)] += times
        self.count += times
        self.total += value * times

    def cumulative(self) -> list[int]:
        """Return for each bound the number of samples at or below it."""
        return list(accumulate(self._buckets))


class Samples:
    """The histograms of one engine. Requests are sampled when they end by themselves; times are in seconds.

    `first_token_s` and `request_s` count from the arrival, so they hold the time in the queue (`queue_s`); `token_s` is
    the time between two tokens, `prefill_s` and `decode_s` what a request spent in either, `running_s` in both.
    """

    def __init__(self) -> None:
        self.first_token_s = Histogram(FIRST_TOKEN_BOUNDS_S)
        self.token_s = Histogram(TOKEN_BOUNDS_S)
        self.request_s = Histogram(REQUEST_BOUNDS_S)
        self.queue_s = Histogram(REQUEST_BOUNDS_S)
        self.running_s = Histogram(REQUEST_BOUNDS_S)
        self.prefill_s = Histogram(REQUEST_BOUNDS_S)
        self.decode_s = Histogram(REQUEST_BOUNDS_S)
        self.prompt_tokens = Histogram(TOKENS_BOUNDS)
        self.generated_tokens = Histogram(TOKENS_BOUNDS)
