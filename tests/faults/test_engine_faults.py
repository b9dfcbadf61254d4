"""The fault matrix for clients that stay: every fault of an engine, at every endpoint, streamed and whole.

Each fault has a pool of its own, so that none finds the kept connections of another.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.engine_faults import FAULTS, TOKENS, End, Fault, pool, untested
from tests.support.books import Books
from tests.support.dialects import DIALECTS, Dialect
from tests.support.engine import EngineProcess
from tests.support.stack import Stack, running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

PATIENCE_S = 0.25
"""With a silent engine, which nothing else can tell from a slow one."""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineProcess]:
    """The engine that fails."""
    with EngineProcess("sim", output_tokens=TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, engine: EngineProcess
) -> Iterator[Stack]:
    """One replica before one engine, which is in many pools."""
    pools = {name: pool(engine.url, patience_s=PATIENCE_S if fault.silent else None) for name, fault in FAULTS.items()}
    config = {"models": {name: {"pool": name, "upstream": "sim"} for name in pools}, "pools": pools}
    folder = tmp_path_factory.mktemp("engine-faults")
    with running_stack(databases, servers, folder, engines=(), extra_engines=[engine.url], config=config) as running:
        yield running


@pytest.fixture(scope="module")
def accounts(stack: Stack, engine: EngineProcess) -> Books:
    """The tenant that asks."""
    return Books(stack, [engine])


def test_every_fault_of_the_engine_has_its_row() -> None:
    assert untested() == []


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("fault", FAULTS.items(), ids=lambda item: item[0])
def test_a_stream_fails_or_ends_properly(
    stack: Stack, books: Books, engine: EngineProcess, fault: tuple[str, Fault], dialect: Dialect
) -> None:
    name, row_of_table = fault
    end = row_of_table.end(dialect.name, stream=True)
    request = dialect.request(model=name, stream=True, sim=dict(row_of_table.sim))
    with stack.gateway.http(books.tenant.key).stream(dialect.path, request) as stream:
        assert stream.status == end.status
        if end.status != 200:
            assert_error(dialect, end, json.loads(b"".join(stream.pieces())), stream.headers)
            pieces = []
        else:
            events = list(stream.data())
            assert stream.cut == (end.code is not None)
            if end.code is not None:
                assert_error(dialect, end, json.loads(events.pop()), {})
            assert dialect.ended(events) == (end.code is None)
            pieces = dialect.pieces(events)
    assert (pieces != []) == (end.code is None or end.begun)
    assert_billed(books.closed(), end, engine, len(pieces))


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("fault", FAULTS.items(), ids=lambda item: item[0])
def test_a_whole_answer_fails_or_is_whole(
    stack: Stack, books: Books, engine: EngineProcess, fault: tuple[str, Fault], dialect: Dialect
) -> None:
    name, row_of_table = fault
    end = row_of_table.end(dialect.name, stream=False)
    request = dialect.request(model=name, sim=dict(row_of_table.sim))
    answer = stack.gateway.http(books.tenant.key).post(dialect.path, request)
    assert answer.status == end.status
    if end.code is not None:
        assert_error(dialect, end, answer.document, answer.headers)
    else:
        assert answer.document["model"] == request["model"]
    assert_billed(books.closed(), end, engine, None)


def assert_error(dialect: Dialect, end: End, document: dict[str, Any], headers: dict[str, str]) -> None:
    """Assert what the client is told. All of these errors may pass, and clients try again."""
    error = dialect.error(document)
    assert error["code"] == end.code
    if dialect.name != "messages":
        assert error["type"] == ("rate_limit_error" if end.status == 429 else "server_error")
    assert headers.get("retry-after") == end.retry_after
    assert "x-should-retry" not in headers


def assert_billed(row: dict[str, Any], end: End, engine: EngineProcess, pieces: int | None) -> None:
    """Assert what the ledger says; `pieces` of the text are what the client of a stream got."""
    assert (row["status"], row["error_code"]) == ("upstream_error" if end.code else "ok", end.code)
    assert row["attempts"] == 1
    known = end.declined or end.billed in {"exact", "zero"}
    assert row["coverage"] == ("exact" if known else "estimated")
    tokens = (row["prompt_tokens"], row["completion_tokens"])
    record = engine.state()["requests"][-1]
    generated = (record["prompt_tokens"], record["generated_tokens"])
    if end.billed in {"nothing", "zero"}:
        assert tokens == (0, 0)
    elif end.billed == "exact":
        assert tokens == generated
        assert record["outcome"] == "finished"
    else:
        assert tokens[0] > 0
        assert 0 < tokens[1] <= generated[1]
        assert pieces is None or tokens[1] == pieces
