"""The token counters that engines keep of themselves, read from their metrics pages by regular expression.

The names are those of the servers' own documentation. llama.cpp counts the prompt tokens that it computed, the others
all of them; text-generation-inference has no plain counters, but histograms whose sums are the same.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple

from gateway.domain.config import EngineKind
from gateway.domain.upstream import UpstreamRequest
from gateway.errors import GatewayError, reason_of
from gateway.providers.dialect import request_headers
from gateway.providers.http_client import HttpUpstream

if TYPE_CHECKING:
    from gateway.domain.config import PoolConfig

SCRAPE_S_MAX = 5.0
PAGE_BYTES_MAX = 8 * 2**20


class _Names(NamedTuple):
    prompt: str
    generation: str
    prompt_is_computed: bool = False


_NAMES = {
    EngineKind.VLLM: _Names("vllm:prompt_tokens_total", "vllm:generation_tokens_total"),
    EngineKind.SGLANG: _Names("sglang:prompt_tokens_total", "sglang:generation_tokens_total"),
    EngineKind.LLAMACPP: _Names("llamacpp:prompt_tokens_total", "llamacpp:tokens_predicted_total", True),
    EngineKind.TGI: _Names("tgi_request_input_length_sum", "tgi_request_generated_tokens_sum"),
}
_STARTED = "process_start_time_seconds"


class EngineCounters(NamedTuple):
    """Tokens since the engine's start. `started_s` is when that was, in Unix time, None where the page has it not.

    `prompt_is_computed`: prompt tokens that were found in a cache are not counted.
    """

    prompt: int
    generation: int
    started_s: float | None
    prompt_is_computed: bool


class NoCounters(Exception):
    """The engine's counters cannot be read; says why."""


async def read_counters(pool: PoolConfig, endpoint: str) -> EngineCounters:
    """Read the counters of one engine of a pool. Raises NoCounters."""
    names = _NAMES.get(pool.engine_kind)
    if names is None:
        raise NoCounters(f"{pool.engine_kind} has no counters")
    try:
        async with asyncio.timeout(SCRAPE_S_MAX):
            page = await _page(pool, endpoint)
    except (GatewayError, TimeoutError) as error:
        raise NoCounters(f"its metrics cannot be read: {reason_of(error)}") from None
    prompt, generation, started_s = (_value(page, name) for name in (names.prompt, names.generation, _STARTED))
    if prompt is None or generation is None:
        missing = names.prompt if prompt is None else names.generation
        raise NoCounters(f"its metrics have no {missing}: is it {pool.engine_kind}, with metrics turned on?")
    return EngineCounters(round(prompt), round(generation), started_s, names.prompt_is_computed)


async def _page(pool: PoolConfig, endpoint: str) -> str:
    upstream = HttpUpstream(endpoint, connect_s=pool.timeouts.connect_s)
    request = UpstreamRequest(b"GET", "/metrics", request_headers(pool), b"", SCRAPE_S_MAX, SCRAPE_S_MAX)
    try:
        response = await upstream.send(request)
        try:
            if response.status != 200:
                raise NoCounters(f"/metrics answers with status {response.status}")
            page = bytearray()
            while piece := await response.read():
                page += piece
                if len(page) > PAGE_BYTES_MAX:
                    raise NoCounters(f"its metrics are larger than {PAGE_BYTES_MAX} bytes")
        finally:
            response.abort()
    finally:
        await upstream.close()
    return page.decode("utf-8", "replace")


def _value(page: str, name: str) -> float | None:
    """Return the sum of a series over its labels, None when there is none (or none that is finite)."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^\n]*\}})? ([0-9.eE+]+)", page, re.MULTILINE)
    try:
        return sum(map(float, found)) if found else None
    except ValueError:
        return None
