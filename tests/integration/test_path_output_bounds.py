"""How long an answer may be at most, by key and model: at every endpoint, asked for or not, streamed or whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.domain.principal import Level
from tests.support.chat import chat
from tests.support.dialects import DIALECTS, Dialect
from tests.support.gateway import SIM_MODEL
from tests.support.ledger import closed_event, opened_events
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

BOUND = 12
LONG = {"output_tokens": 500}
FIELDS = {"messages": "max_tokens", "responses": "max_output_tokens"}


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One replica with an engine whose answers are long; `other` is the same model under another name."""
    config = {"models": {"sim": SIM_MODEL, "other": {"pool": "gpu", "upstream": "sim"}}}
    with running_stack(databases, servers, tmp_path_factory.mktemp("bounds"), config=config) as running:
        yield running


def generated(stack: Stack, client: Http, dialect: Dialect, **fields: object) -> int:
    """Return how many tokens a request got."""
    request = dialect.request(sim=LONG, **fields)
    if "stream" not in fields:
        answer = client.post(dialect.path, request)
        assert answer.status == 200, answer
        request_id = answer.request_id
    else:
        with client.stream(dialect.path, request) as stream:
            list(stream.data())
            request_id = stream.request_id
    return int(closed_event(stack.dsn, request_id)["completion_tokens"])


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_larger_wish_is_cut(stack: Stack, dialect: Dialect) -> None:
    client = stack.client(output_tokens_max=BOUND)
    name = FIELDS.get(dialect.name, "max_tokens")
    assert generated(stack, client, dialect, **{name: 400}) == BOUND
    assert generated(stack, client, dialect, **{name: 400}, stream=True) == BOUND
    assert generated(stack, client, dialect, **{name: 3}) == 3


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_request_without_a_wish_is_bounded_all_the_same(stack: Stack, dialect: Dialect) -> None:
    client = stack.client(output_tokens_max=BOUND)
    name = FIELDS.get(dialect.name, "max_tokens")
    assert generated(stack, client, dialect, **{name: None}) == BOUND
    assert generated(stack, client, dialect, **{name: None}, stream=True) == BOUND


def test_each_choice_is_bounded_and_no_more_is_reserved(stack: Stack) -> None:
    tenant = stack.tenant(output_tokens_max=BOUND)
    answer = stack.gateway.http(tenant.key).post("/v1/chat/completions", chat(n=3, max_tokens=400, sim=LONG))
    assert answer.document["usage"]["completion_tokens"] == 3 * BOUND
    (opened,) = opened_events(stack.dsn, tenant)
    assert opened["estimate_completion_tokens"] == 3 * BOUND


def test_the_tightest_level_counts_and_only_for_its_model(stack: Stack) -> None:
    tenant = stack.tenant(limits={Level.ORGANIZATION: {"output_tokens_max": 40}})
    tenant.limit(Level.TEAM, model="other", output_tokens_max=BOUND)
    client = stack.gateway.http(tenant.key)

    def tokens(model: str) -> int:
        answer = client.post("/v1/chat/completions", chat(model=model, sim=LONG))
        return int(answer.document["usage"]["completion_tokens"])

    assert (tokens("sim"), tokens("other")) == (40, BOUND)
    tenant.limit(Level.TEAM, output_tokens_max=20)
    wait_for(lambda: tokens("sim") == 20, "the new bound takes effect")
