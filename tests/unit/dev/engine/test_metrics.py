"""The metrics pages: what Prometheus reads from them is what the engine counted, under each server's names."""

import contextlib
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.dev.engine.behaviour import Behaviour
from gateway.dev.engine.core import Engine, Job
from gateway.dev.engine.counters import Histogram
from gateway.dev.engine.exposition import Page
from gateway.dev.engine.generation import Wanted, answer
from gateway.dev.engine.metrics import render
from gateway.dev.engine.options import EngineOptions, Kind
from gateway.dev.engine.records import Record

# By kind: running, waiting, computed or all prompt tokens, generated tokens, share of the memory in use, labels.
NAMES: dict[Kind, tuple[str, str, str, str, str | None, dict[str, str]]] = {
    "vllm": (
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:kv_cache_usage_perc",
        {"engine": "0", "model_name": 'odd "name"\\'},
    ),
    "sglang": (
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:prompt_tokens_total",
        "sglang:generation_tokens_total",
        "sglang:token_usage",
        {"model_name": 'odd "name"\\'},
    ),
    "llamacpp": (
        "llamacpp:requests_processing",
        "llamacpp:requests_deferred",
        "llamacpp:prompt_tokens_total",
        "llamacpp:tokens_predicted_total",
        None,
        {},
    ),
    "tgi": (
        "tgi_batch_current_size",
        "tgi_queue_size",
        "tgi_request_input_length_sum",
        "tgi_request_generated_tokens_sum",
        None,
        {},
    ),
}


def job() -> Job:
    said = [answer(Wanted(seed=0, max_tokens=100, output_tokens=10))]
    return Job(b"p" * 400, said, Behaviour(ttft_ms=0, tokens_per_second=0), Record("POST", "/", [], b""), streamed=True)


def samples(engine: Engine) -> dict[str, tuple[float, dict[str, str]]]:
    """Return the samples of the page without their buckets, as a Prometheus reads them."""
    families = text_string_to_metric_families(render(engine).decode())
    return {
        sample.name: (sample.value, sample.labels)
        for family in families
        for sample in family.samples
        if "le" not in sample.labels
    }


@pytest.mark.parametrize("kind", list(NAMES))
async def test_every_kind_shows_the_true_counts_by_its_own_names(kind: Kind) -> None:
    options = EngineOptions(models=('odd "name"\\',), kind=kind, kv_cache_tokens=1_000)
    engine = Engine(options)
    for _ in range(2):
        async with contextlib.aclosing(engine.generate(job())) as tokens:
            async for _ in tokens:
                pass
    running = engine.generate(job())
    await anext(running)
    running_name, waiting_name, prompt_name, generated_name, usage_name, labels = NAMES[kind]
    found = samples(engine)
    assert found[running_name] == (1, labels)
    assert found[waiting_name] == (0, labels)
    # llama.cpp counts what it computed, TGI samples what has ended.
    prompt_tokens = {"llamacpp": 100 + 4 + 4, "tgi": 200}.get(kind, 300)
    assert found[prompt_name] == (prompt_tokens, labels)
    assert found[generated_name] == (20 if kind == "tgi" else 21, labels)
    if usage_name is not None:
        assert found[usage_name] == (7 / 62, labels)
    assert all(name.startswith(kind) for name in found)
    await running.aclose()
    assert samples(engine)[running_name] == (0, labels)


async def test_vllm_shows_how_long_requests_ran_and_that_none_was_preempted() -> None:
    seconds = iter(range(100))
    engine = Engine(EngineOptions(), clock=lambda: float(next(seconds)))
    async with contextlib.aclosing(engine.generate(job())) as tokens:
        async for _ in tokens:
            pass
    found = {name: value for name, (value, _) in samples(engine).items()}
    assert found["vllm:num_preemptions_total"] == 0
    parts = [found[f"vllm:request_{part}_time_seconds_sum"] for part in ("prefill", "decode")]
    assert found["vllm:request_inference_time_seconds_sum"] == sum(parts) > 0
    assert found["vllm:request_inference_time_seconds_count"] == 1


async def test_loras_show_by_name_while_they_run() -> None:
    engine = Engine(EngineOptions(models=("base",), loras=("one", "two")))
    running = engine.generate(replace(job(), model="two"))
    await anext(running)
    labels = {"max_lora": "2", "running_lora_adapters": "two", "waiting_lora_adapters": ""}
    value, found = samples(engine)["vllm:lora_requests_info"]
    assert found == labels
    assert value > engine.started_at - 1, "the value is the time, so that the newest series can be told"
    await running.aclose()
    assert samples(engine)["vllm:lora_requests_info"][1] == labels | {"running_lora_adapters": ""}
    assert "vllm:lora_requests_info" not in samples(Engine(EngineOptions()))


def test_a_histogram_counts_at_or_below_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 1)):
        histogram.observe(value, times)
    assert (histogram.bounds, histogram.cumulative()) == ((1.0, 2.0, float("inf")), [3, 4, 5])
    assert (histogram.count, histogram.total) == (5, 13.0)
    known: dict[str, list[str]] = {}
    for _ in range(2):
        page = Page({"a": "1", "z": "2"}, known)
        page.histogram("h", "text", histogram)
        assert page.render().decode().splitlines() == [
            "# HELP h text",
            "# TYPE h histogram",
            'h_bucket{a="1",le="1.0",z="2"} 3.0',
            'h_bucket{a="1",le="2.0",z="2"} 4.0',
            'h_bucket{a="1",le="+Inf",z="2"} 5.0',
            'h_count{a="1",z="2"} 5.0',
            'h_sum{a="1",z="2"} 13.0',
        ]
