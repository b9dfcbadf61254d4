"""`GET /metrics` under the names of the server that an engine stands for: vLLM, SGLang, llama.cpp or TGI.

All four show the same numbers. What a server does not show, its page does not have: llama.cpp has no labels, TGI's
counters have no `_total` and its token counts are the sums of histograms.
"""

import time

from gateway.dev.engine.core import Engine
from gateway.dev.engine.exposition import Page
from gateway.dev.engine.kv_cache import BLOCK_TOKENS

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def render(engine: Engine) -> bytes:
    """Return the page as it is now."""
    kind = engine.options.kind
    if kind == "sglang":
        return _sglang(engine)
    if kind == "llamacpp":
        return _llamacpp(engine)
    return _tgi(engine) if kind == "tgi" else _vllm(engine)


def _vllm(engine: Engine) -> bytes:
    now, samples, options = engine.counters, engine.samples, engine.options
    page = Page({"engine": "0", "model_name": options.models[0]}, engine.metric_heads)
    page.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", now.running)
    page.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", now.waiting)
    page.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", engine.cache.usage)
    blocks = {
        "block_size": str(BLOCK_TOKENS),
        "enable_prefix_caching": str(options.prefix_caching),
        "num_gpu_blocks": str(engine.cache.capacity_blocks),
        "engine": "0",
    }
    page.gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", 1, blocks)
    # Where vLLM would preempt a request to make room, here it goes on.
    page.counter("vllm:num_preemptions_total", "Cumulative number of preemption from the engine.", 0)
    page.counter("vllm:prompt_tokens_total", "Number of prefill tokens processed.", now.prompt_tokens)
    page.counter("vllm:generation_tokens_total", "Number of generation tokens processed.", now.generated_tokens)
    queries = now.prefix_cache_queries
    page.counter("vllm:prefix_cache_queries_total", "Prefix cache queries, in number of queried tokens.", queries)
    page.counter(
        "vllm:prefix_cache_hits_total", "Prefix cache hits, in number of cached tokens.", now.prefix_cache_hits
    )
    page.counters(
        "vllm:request_success_total", "Count of finished requests.", "finished_reason", now.finished_reasons.items()
    )
    if options.loras:
        page.gauge("vllm:lora_requests_info", "Running stats on lora requests.", time.time(), _loras(engine))
    text = "Histogram of %s."
    page.histogram("vllm:time_to_first_token_seconds", text % "time to first token in seconds", samples.first_token_s)
    page.histogram("vllm:inter_token_latency_seconds", text % "inter-token latency in seconds", samples.token_s)
    page.histogram("vllm:e2e_request_latency_seconds", text % "e2e request latency in seconds", samples.request_s)
    page.histogram("vllm:request_queue_time_seconds", text % "time spent in WAITING phase", samples.queue_s)
    page.histogram("vllm:request_inference_time_seconds", text % "time spent in RUNNING phase", samples.running_s)
    page.histogram("vllm:request_prefill_time_seconds", text % "time spent in PREFILL phase", samples.prefill_s)
    page.histogram("vllm:request_decode_time_seconds", text % "time spent in DECODE phase", samples.decode_s)
    page.histogram("vllm:request_prompt_tokens", text % "prefill tokens of requests", samples.prompt_tokens)
    page.histogram("vllm:request_generation_tokens", text % "generation tokens of requests", samples.generated_tokens)
    return page.render()


def _loras(engine: Engine) -> dict[str, str]:
    """Return vLLM's labels: the names of the adapters in use, comma-separated, and how many may run at once."""
    scheduler = engine.scheduler
    return {
        "max_lora": str(len(engine.options.loras)),
        "running_lora_adapters": ",".join(name for name, count in scheduler.running_loras.items() if count),
        "waiting_lora_adapters": ",".join(name for name, count in scheduler.waiting_loras.items() if count),
    }


def _sglang(engine: Engine) -> bytes:
    now, samples, capacity = engine.counters, engine.samples, engine.options.kv_cache_tokens
    page = Page({"model_name": engine.options.models[0]}, engine.metric_heads)
    page.gauge("sglang:num_running_reqs", "The number of running requests", now.running)
    page.gauge("sglang:num_queue_reqs", "The number of requests in the waiting queue", now.waiting)
    page.gauge("sglang:num_used_tokens", "The number of used tokens", engine.cache.held_blocks * BLOCK_TOKENS)
    page.gauge("sglang:max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.", capacity)
    page.gauge("sglang:token_usage", "The token usage", engine.cache.usage)
    hit_rate = now.prefix_cache_hits / now.prefix_cache_queries if now.prefix_cache_queries else 0.0
    page.gauge("sglang:cache_hit_rate", "The cache hit rate", hit_rate)
    page.counter("sglang:prompt_tokens_total", "Number of prefill tokens processed.", now.prompt_tokens)
    page.counter("sglang:generation_tokens_total", "Number of generation tokens processed.", now.generated_tokens)
    cached = now.prompt_tokens - now.prefilled_tokens
    page.counter("sglang:cached_tokens_total", "Number of cached prompt tokens.", cached)
    page.counter("sglang:num_requests_total", "Number of requests processed.", now.finished)
    page.counter("sglang:num_aborted_requests_total", "Number of requests aborted.", now.aborted)
    text = "Histogram of %s in seconds."
    page.histogram("sglang:time_to_first_token_seconds", text % "time to first token", samples.first_token_s)
    page.histogram("sglang:inter_token_latency_seconds", text % "inter-token latency", samples.token_s)
    page.histogram("sglang:e2e_request_latency_seconds", text % "End-to-end request latency", samples.request_s)
    return page.render()


def _llamacpp(engine: Engine) -> bytes:
    now, samples = engine.counters, engine.samples
    page = Page({}, engine.metric_heads)
    prefill_s, decode_s = samples.prefill_s.total, samples.decode_s.total
    page.counter("llamacpp:prompt_tokens_total", "Number of prompt tokens processed.", now.prefilled_tokens)
    page.counter("llamacpp:prompt_seconds_total", "Prompt process time", prefill_s)
    page.counter("llamacpp:tokens_predicted_total", "Number of generation tokens processed.", now.generated_tokens)
    page.counter("llamacpp:tokens_predicted_seconds_total", "Predict process time", decode_s)
    prompt_rate = now.prefilled_tokens / prefill_s if prefill_s else 0.0
    decode_rate = now.generated_tokens / decode_s if decode_s else 0.0
    page.gauge("llamacpp:prompt_tokens_seconds", "Average prompt throughput in tokens/s.", prompt_rate)
    page.gauge("llamacpp:predicted_tokens_seconds", "Average generation throughput in tokens/s.", decode_rate)
    page.gauge("llamacpp:requests_processing", "Number of requests processing.", now.running)
    page.gauge("llamacpp:requests_deferred", "Number of requests deferred.", now.waiting)
    return page.render()


def _tgi(engine: Engine) -> bytes:
    now, samples = engine.counters, engine.samples
    page = Page({}, engine.metric_heads)
    page.gauge("tgi_batch_current_size", "Current batch size", now.running)
    held = engine.cache.held_blocks * BLOCK_TOKENS
    page.gauge("tgi_batch_current_max_tokens", "Maximum tokens for the current batch", held)
    page.gauge("tgi_queue_size", "Current queue size", now.waiting)
    page.counter("tgi_request_count", "Total number of requests", now.received)
    page.counter("tgi_request_success", "Number of successful requests", now.finished)
    text = "Time spent processing the request (e2e latency)"
    page.histogram("tgi_request_duration", text, samples.request_s)
    page.histogram("tgi_request_queue_duration", "Time spent in the queue per request", samples.queue_s)
    page.histogram("tgi_request_inference_duration", "Request inference duration", samples.decode_s)
    text = "Mean time per token per request (inter-token latency)"
    page.histogram("tgi_request_mean_time_per_token_duration", text, samples.token_s)
    page.histogram("tgi_request_input_length", "Input token length per request", samples.prompt_tokens)
    page.histogram("tgi_request_generated_tokens", "Generated tokens per request", samples.generated_tokens)
    return page.render()
