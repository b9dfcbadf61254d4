"""Installs the engines that the chosen tests need, and runs each once for all of them, behind one replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.real_engine.engines import CONTEXT, KINDS, EngineMissing, Kind, RealEngine
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

OUTPUT_MAX = 24_000
"""Of one answer: with the longest context that is left for the prompt, generating this many takes an engine long."""
SHORT_OUTPUT_MAX = 200
PRICE = {"input": "0.20", "cached_input": "0.02", "output": "0.80"}


@dataclass(frozen=True)
class Stand:
    """An engine, and a replica in front that calls its model `tiny`, and `brief` where answers are to be short."""

    engine: RealEngine
    stack: Stack

    def sdk(self, tenant: Tenant) -> openai.OpenAI:
        """Return the SDK at the replica, without retries that would hide a failure."""
        return openai.OpenAI(base_url=self.stack.gateway.base_url, api_key=tenant.key, max_retries=0)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install here, where no test's time runs, and only what was chosen: names of tests hold their engine's."""
    terminal = session.config.get_terminal_writer()
    for kind in KINDS:
        if not session.config.option.collectonly and any(kind.name in item.nodeid for item in session.items):
            try:
                kind.prepare(terminal.line)
            except EngineMissing as error:
                raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session", params=KINDS, ids=lambda kind: kind.name)
def any_engine(
    request: pytest.FixtureRequest,
    databases: Databases,
    servers: ServerAddresses,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stand]:
    """Each engine in turn. A module about one of them parametrizes this fixture indirectly with its `Kind`."""
    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    with RealEngine(kind, folder) as engine:
        model: dict[str, Any] = {"pool": "gpu", "upstream": engine.upstream, "context": CONTEXT, "price": PRICE}
        models = {"tiny": {**model, "output": OUTPUT_MAX}, "brief": {**model, "output": SHORT_OUTPUT_MAX}}
        config = {"pool": kind.pool, "models": models}
        with running_stack(databases, servers, folder, engines=[], extra_engines=[engine.url], config=config) as stack:
            yield Stand(engine, stack)
