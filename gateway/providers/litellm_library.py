"""Imports litellm and quietens it. The only place that does: it takes 2 s and 160 MB, and phones home when left alone.

Nothing here keeps state: the interpreter remembers modules, and setting them up again changes nothing.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, Protocol

from gateway.settings.foreign import prepare_for_litellm

CONNECTIONS_MAX = 4096
IDLE_CONNECTIONS_MAX = 512

LOGGERS = ("LiteLLM", "LiteLLM Proxy", "LiteLLM Router")
WARNED_FROM = r"(aiohttp|litellm|openai|pydantic)(\.|$)"
CALLBACKS = (
    "callbacks",
    "input_callback",
    "success_callback",
    "failure_callback",
    "service_callback",
    "_async_input_callback",
    "_async_success_callback",
    "_async_failure_callback",
)


class Library(Protocol):
    """What the gateway uses of litellm. Arguments are litellm's own; answers are its pydantic models or its streams."""

    async def acompletion(self, **arguments: Any) -> Any:
        """Answer a conversation."""
        ...

    async def atext_completion(self, **arguments: Any) -> Any:
        """Continue a text."""
        ...

    async def aembedding(self, **arguments: Any) -> Any:
        """Embed texts."""
        ...

    def timeout(self, *, connect_s: float, silence_s: float) -> object:
        """Return litellm's time limits: connecting, and waiting for bytes."""
        ...


class _Litellm:
    """See `Library`."""

    def __init__(self, litellm: Any, httpx: Any) -> None:
        self.acompletion = litellm.acompletion
        self.atext_completion = litellm.atext_completion
        self.aembedding = litellm.aembedding
        self._httpx = httpx

    def timeout(self, *, connect_s: float, silence_s: float) -> object:
        return self._httpx.Timeout(silence_s, connect=connect_s)


def load() -> Library:
    """Import litellm and set it up; blocks the thread for seconds the first time.

    Raises:
        ImportError: it, or something that it needs, is not installed.
    """
    prepare_for_litellm()
    import httpx  # noqa: PLC0415 - comes with litellm, and is not a dependency of the gateway
    import litellm  # noqa: PLC0415 - slow and large: only replicas with a litellm pool pay for it

    warnings.filterwarnings("ignore", module=WARNED_FROM)
    for name in LOGGERS:
        logging.getLogger(name).disabled = True  # its lines hold prompts; what happened is in the gateway's own
    for name in CALLBACKS:
        setattr(litellm, name, [])
    litellm.suppress_debug_info = True
    litellm.set_verbose = False
    litellm.telemetry = False
    litellm.cache = None
    litellm.num_retries = 0
    litellm.drop_params = False
    litellm.modify_params = False
    # It takes a hundred equal chunks for a fault of the engine; a model that is asked to repeat itself sends more.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = 2**62
    # For providers that speak OpenAI's own dialect: without one of ours, each text completion opens and leaks a client.
    if litellm.aclient_session is None:
        limits = httpx.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=IDLE_CONNECTIONS_MAX)
        litellm.aclient_session = httpx.AsyncClient(limits=limits)
    return _Litellm(litellm, httpx)
