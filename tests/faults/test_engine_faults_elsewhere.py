"""The fault matrix for two engines: what the first fails at before it has said anything, the second serves.

Each cell has a pool of its own, whose first turn is the first engine's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.engine_faults import FAULTS, TOKENS, pool
from tests.support.books import Books
from tests.support.dialects import CHAT, DIALECTS, Dialect
from tests.support.engine import EngineProcess
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

PATIENCE_S = 0.5
"""With either engine: the second has to begin within it."""
CELLS = [
    (name, dialect, stream)
    for name, fault in FAULTS.items()
    for dialect in DIALECTS
    for stream in (True, False)
    if not fault.silent or dialect is CHAT
    if (end := fault.end(dialect.name, stream=stream)).code is not None and not end.begun
]
"""A silence has to be waited for, and has nothing of an endpoint in it: one of them will do."""


def model_of(name: str, dialect: Dialect, *, stream: bool) -> str:
    """Return the model, and pool, of one cell."""
    return f"{name}-{dialect.name}-{'stream' if stream else 'whole'}"


KEEP_ALIVE = ": keep-alive"


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[EngineProcess, EngineProcess]]:
    """The engine that fails, and the one that does not."""
    with EngineProcess("sim", output_tokens=TOKENS) as first, EngineProcess("sim", output_tokens=TOKENS) as second:
        yield first, second


@pytest.fixture(scope="module")
def stack(
    databases: Databases,
    servers: ServerAddresses,
    tmp_path_factory: pytest.TempPathFactory,
    engines: tuple[EngineProcess, EngineProcess],
) -> Iterator[Stack]:
    """One replica before both, which sends signs of life while the first is silent: they are no first byte."""
    urls = [engine.url for engine in engines]
    pools = {
        model_of(name, dialect, stream=stream): pool(*urls, patience_s=PATIENCE_S if FAULTS[name].silent else None)
        for name, dialect, stream in CELLS
    }
    config = {"models": {name: {"pool": name, "upstream": "sim"} for name in pools}, "pools": pools}
    folder = tmp_path_factory.mktemp("engine-faults-elsewhere")
    with running_stack(
        databases,
        servers,
        folder,
        engines=(),
        extra_engines=urls,
        config=config,
        stream_keep_alive_s=PATIENCE_S / 5,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def accounts(stack: Stack, engines: tuple[EngineProcess, EngineProcess]) -> Books:
    """The tenant that asks."""
    return Books(stack, engines)


@pytest.mark.parametrize(
    ("name", "dialect", "stream"), CELLS, ids=[f"{name}-{dialect.name}-{stream}" for name, dialect, stream in CELLS]
)
def test_another_engine_serves(
    stack: Stack,
    books: Books,
    engines: tuple[EngineProcess, EngineProcess],
    name: str,
    dialect: Dialect,
    stream: bool,  # noqa: FBT001 - pytest passes by name
) -> None:
    first, second = engines
    received = first.counters()["received"]
    first.control(times=1, **FAULTS[name].sim)
    client = stack.gateway.http(books.tenant.key)
    request = dialect.request(model=model_of(name, dialect, stream=stream), stream=stream)
    if stream:
        with client.stream(dialect.path, request) as answer:
            lines = list(answer.lines())
            events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
            assert KEEP_ALIVE in lines or not FAULTS[name].silent
            assert (answer.status, answer.cut, dialect.ended(events)) == (200, False, True)
    else:
        whole = client.post(dialect.path, request)
        assert (whole.status, whole.document["model"]) == (200, request["model"])
    row = books.closed()
    assert (row["status"], row["attempts"], row["engine"]) == ("ok", 2, second.url)
    served = second.state()["requests"][-1]
    assert (row["coverage"], row["prompt_tokens"], row["completion_tokens"]) == (
        "exact",
        served["prompt_tokens"],
        served["generated_tokens"],
    )
    state = first.state()
    assert state["received"] == received + 1
    assert state["behaviour"] == second.state()["behaviour"], "the fault was had"
