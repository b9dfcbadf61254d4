"""The engine's counters, and vLLM's names for them on `GET /metrics`.

The counters are plain numbers, counted where the thing happens, and read by a collector when somebody asks: a token
costs an addition. `/sim/state` reads the same numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

FINISHED_REASONS = ("stop", "length", "abort", "error")


@dataclass(slots=True)
class Counters:
    """What one engine has done since it started, and what it does now.

    `received`: inference requests with a readable body. Each ends as one of `finished`, `failed` (answered with an
    error, or reset by order) and `aborted` (the client hung up). `running` and `waiting` are requests now;
    `kv_tokens` what the running ones hold. `generated_tokens` counts tokens when they are generated, `prompt_tokens`
    when the prefill is done.
    """

    received: int = 0
    finished: int = 0
    failed: int = 0
    aborted: int = 0
    running: int = 0
    waiting: int = 0
    kv_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    finished_reasons: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FINISHED_REASONS, 0))


class VllmCollector(Collector):
    """Shows counters under the names and labels of vLLM.

    Label values are constant, so a scrape builds nine families.
    """

    def __init__(self, counters: Counters, model_name: str, kv_cache_tokens: int) -> None:
        self._counters = counters
        self._labels = {"engine": "0", "model_name": model_name}
        self._kv_cache_tokens = kv_cache_tokens

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families."""
        now = self._counters
        yield self._gauge("vllm:num_requests_running", "Number of requests in model execution batches.", now.running)
        yield self._gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", now.waiting)
        usage = min(1.0, now.kv_tokens / self._kv_cache_tokens)
        yield self._gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage)
        yield self._counter("vllm:prompt_tokens", "Number of prefill tokens processed.", now.prompt_tokens)
        yield self._counter("vllm:generation_tokens", "Number of generation tokens processed.", now.generated_tokens)
        queries, hits = now.prefix_cache_queries, now.prefix_cache_hits
        yield self._counter("vllm:prefix_cache_queries", "Prefix cache queries, in number of queried tokens.", queries)
        yield self._counter("vllm:prefix_cache_hits", "Prefix cache hits, in number of cached tokens.", hits)
        labels = [*self._labels, "finished_reason"]
        success = CounterMetricFamily("vllm:request_success", "Count of finished requests.", labels=labels)
        for reason, count in now.finished_reasons.items():
            success.add_metric([*self._labels.values(), reason], count)
        yield success

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family


class MetricsPage:
    """The text of `GET /metrics` of one engine."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(collector)

    def render(self) -> bytes:
        """Return the page as it is now."""
        return generate_latest(self._registry)
