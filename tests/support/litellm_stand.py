"""A replica with litellm pools on real sockets: the simulated engine behind two dialects, a scripted Anthropic."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.anthropic import AnthropicServer, text
from tests.support.engine import EngineProcess
from tests.support.gateway import GatewayProcess, write_config
from tests.support.litellm_venv import litellm_python
from tests.support.servers import Databases, empty_redis
from tests.support.tenants import make_tenant
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello"}]
ASK_FOR_USAGE: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
MODELS = {
    "vllm": {"pool": "engines", "upstream": "hosted_vllm/sim"},
    "openai": {"pool": "engines", "upstream": "openai/sim"},
    "claude": {"pool": "anthropic", "upstream": "anthropic/claude-sim"},
    "hasty": {"pool": "hasty", "upstream": "hosted_vllm/sim"},
}
"""`hasty` is the engine with 0.3 s of patience."""

_PRICE = {"input": "1", "cached_input": "0.1", "output": "2"}
_AS_AT_THE_START = ("status", "retry_after", "no_usage", "abort_after_chunks")
_PACE = ("tokens_per_second", "ttft_ms", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True)
class Stand:
    """A replica, the providers behind it, and a tenant's client."""

    gateway: GatewayProcess
    engine: EngineProcess
    anthropic: AnthropicServer
    http: Http

    def reset(self) -> None:
        """Let the providers behave as at the start."""
        self.engine.control(**dict.fromkeys((*_AS_AT_THE_START, *_PACE)))
        self.anthropic.answer = text("hello there")
        self.anthropic.hung_up.clear()

    def billed(self, request_id: str) -> dict[str, Any]:
        """Return what a request was billed with, from its log line."""
        return wait_for(lambda: self.lines(request_id=request_id), f"request {request_id} has its line in the log")[-1]

    def lines(self, **fields: object) -> list[dict[str, Any]]:
        """Return the log lines of requests that have these fields."""
        lines = self.gateway.log_lines()
        return [line for line in lines if line.get("event") == "request" and fields.items() <= line.items()]


@contextlib.contextmanager
def litellm_stand(servers: ServerAddresses, databases: Databases, folder: Path) -> Iterator[Stand]:
    """Start all of it; what it writes is in `folder`."""
    (folder / "key").write_text("sk-provider")
    with databases.migrated() as dsn, EngineProcess("sim", output_tokens=8) as engine, AnthropicServer() as provider:
        empty_redis(servers.redis_url)
        pool = {"engine": "litellm", "api_key_file": "key", "headers": {"x-operator": "penstock"}}
        engines = {**pool, "endpoints": [f"{engine.url}/v1"]}
        pools = {
            "engines": engines,
            "hasty": {**engines, "timeouts": {"first_byte_s": 0.3, "idle_s": 0.3}},
            "anthropic": {**pool, "endpoints": [provider.url]},
        }
        models = {name: {**model, "price": _PRICE} for name, model in MODELS.items()}
        config = write_config(folder / "penstock.yaml", [engine.url], models=models, pools=pools)
        gateway = GatewayProcess(config, dsn, servers.redis_url)
        gateway.python = str(litellm_python())
        with gateway:
            tenant = make_tenant(dsn)
            yield Stand(gateway, engine, provider, gateway.http(tenant.key))


def tokens(line: dict[str, Any]) -> tuple[int, int, int, str]:
    """Return prompt, cached and completion tokens and the coverage of a log line."""
    return line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"], line["coverage"]


def said(chunks: list[dict[str, Any]]) -> str:
    """Return the text that the chunks of a stream make."""
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
