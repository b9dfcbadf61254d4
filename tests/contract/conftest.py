"""What the tests of real clients share: replicas before engines, and SDKs with a key of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.support.agents import Agents, running_agents
from tests.support.engine import EngineProcess
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

ANSWER_TOKENS = 12
MODELS: dict[str, dict[str, Any]] = {
    "coder": {
        "pool": "gpu",
        "upstream": "sim",
        "aliases": ["default"],
        "context": 4096,
        "output": 1024,
        "price": {"input": "0.20", "cached_input": "0.02", "output": "0.80"},
    },
    "hidden": {"pool": "gpu", "upstream": "sim"},
}


@pytest.fixture(scope="package")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica before an engine that calls the model by another name."""
    engines = [EngineProcess("sim", output_tokens=ANSWER_TOKENS, max_model_len=4096)]
    folder = tmp_path_factory.mktemp("sdk")
    with running_stack(databases, servers, folder, engines=engines, config={"models": MODELS}) as running:
        yield running


@pytest.fixture(scope="package")
def agents(
    databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Agents]:
    """One replica for agents, before engines that fail on demand."""
    with running_agents(databases, servers, tmp_path_factory.mktemp("agents")) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """The SDK with a key without limits, and without retries that would hide a refusal."""
    with sdk(stack, stack.tenant().key) as made:
        yield made


def sdk(stack: Stack, key: str, max_retries: int = 0, **options: Any) -> openai.OpenAI:
    """Return the SDK at the first replica."""
    return openai.OpenAI(base_url=stack.gateway.base_url, api_key=key, max_retries=max_retries, **options)
