"""How litellm is set up, on a stand-in for its module: nothing is downloaded, logged, retried or dropped."""

from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.domain.config import EngineKind, PoolConfig
from gateway.providers.connect import connect
from gateway.providers.http_client import HttpUpstream
from gateway.providers.litellm_connection import LitellmConnection
from gateway.providers.litellm_library import CALLBACKS, LOGGERS, load
from gateway.settings.foreign import LITELLM_ENVIRONMENT


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module `litellm`, and a module `httpx` whose objects are the arguments that they were made with."""
    for name in LITELLM_ENVIRONMENT:
        monkeypatch.setenv(name, "whatever")

    def made(*arguments: Any, **options: Any) -> Any:
        return (arguments, options)

    functions = {"acompletion": "chat", "atext_completion": "text", "aembedding": "embed"}
    found = SimpleNamespace(**functions, aclient_session=None, success_callback=["langfuse"], drop_params=True)
    monkeypatch.setitem(sys.modules, "litellm", found)
    monkeypatch.setitem(sys.modules, "httpx", SimpleNamespace(Timeout=made, Limits=made, AsyncClient=made))
    return found


def test_litellm_is_quiet_and_adds_nothing_of_its_own(module: SimpleNamespace) -> None:
    library = load()
    functions: Any = library
    assert (functions.acompletion, functions.atext_completion, functions.aembedding) == ("chat", "text", "embed")
    assert library.timeout(connect_s=1, silence_s=9) == ((9,), {"connect": 1})
    assert (module.num_retries, module.drop_params, module.modify_params, module.cache) == (0, False, False, None)
    assert [getattr(module, name) for name in CALLBACKS] == [[]] * len(CALLBACKS)
    assert {name: os.environ[name] for name in LITELLM_ENVIRONMENT} == LITELLM_ENVIRONMENT
    assert all(logging.getLogger(name).disabled for name in LOGGERS)


def test_loading_again_keeps_the_client(module: SimpleNamespace) -> None:
    load()
    client = module.aclient_session
    load()
    assert module.aclient_session is client


async def test_engines_of_kind_litellm_are_called_through_it(module: SimpleNamespace) -> None:
    assert module.aclient_session is None
    connection = connect(PoolConfig("a", EngineKind.LITELLM, ("http://a",)), "http://a")
    assert isinstance(connection, LitellmConnection)
    await connection.close()
    assert isinstance(connect(PoolConfig("b", EngineKind.OPENAI, ("http://a",)), "http://a"), HttpUpstream)
