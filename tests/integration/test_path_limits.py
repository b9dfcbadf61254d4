"""Limits at every level: what is admitted, how a refusal is told, and what becomes of a guess that was short."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway.domain.principal import TENANT_LEVELS, Level
from tests.support.chat import chat, embedding, message
from tests.support.gateway import SIM_MODEL
from tests.support.ledger import all_closed, opened_events
from tests.support.redis_setups import looking
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    import redis

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Answer, Http
    from tests.support.servers import Databases
    from tests.support.tenants import Tenant

CHAT, VECTORS = "/v1/chat/completions", "/v1/embeddings"
SLOW = 1
"""Per minute: nothing worth speaking of comes back while a test runs, so that a burst alone decides."""


@pytest.fixture(scope="module", params=["standalone", "cluster"])
def stack(
    databases: Databases,
    servers: ServerAddresses,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Stack]:
    """Two replicas that share limits, in one Redis or in a cluster. Nothing has been learnt of the model `fresh`."""
    if request.param == "cluster":
        servers = replace(servers, redis_url=request.getfixturevalue("shared_cluster").address)
    config = {"models": {"sim": SIM_MODEL, "fresh": {"pool": "gpu", "upstream": "sim"}}}
    with running_stack(databases, servers, tmp_path_factory.mktemp("limits"), replicas=2, config=config) as running:
        yield running


@pytest.fixture
def store(stack: Stack) -> Iterator[redis.Redis]:
    """The Redis that the replicas use."""
    with looking(stack.redis_url, decode_responses=True) as client:
        yield client


def settled(store: redis.Redis, tenant: Tenant) -> None:
    """Wait until no reservation of a tenant is left."""
    keys = f"pst:{{{tenant.organization_id.hex}}}:r:*"
    wait_for(lambda: not list(store.scan_iter(keys)), "all reservations are settled")


def level_of(store: redis.Redis, subject_id: UUID, unit: str) -> float:
    """Return the level that a bucket was left at."""
    (key,) = store.scan_iter(f"pst:*:b:{subject_id.hex}:{unit}:*")
    return float(str(store.get(key)).split()[0])


def assert_limited(answer: Answer, limit: str, wait_s_max: float = 60.0) -> None:
    """Assert a refusal by `limit`, with the time to wait in both headers."""
    assert_refused(answer, 429, "rate_limit_exceeded")
    assert limit in answer.error["message"]
    assert answer.error["type"] == "rate_limit_error"
    wait_ms = int(answer.headers["retry-after-ms"])
    assert 0 < wait_ms <= wait_s_max * 1000
    assert int(answer.headers["retry-after"]) == -(-wait_ms // 1000)


def refusals(client: Http) -> list[Answer]:
    """Ask once and return the answer if it is a refusal."""
    return [answer for answer in (client.post(CHAT, chat()),) if answer.status != 200]


@pytest.mark.parametrize("level", TENANT_LEVELS)
def test_requests_are_limited_at_every_level(stack: Stack, level: Level) -> None:
    tenant = stack.tenant(limits={level: {"requests_per_minute": SLOW, "requests_burst": 3}})
    client = stack.gateway.http(tenant.key)
    answers = [client.post(CHAT, chat()) for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["2", "1", "0"]
    assert {answer.headers["x-ratelimit-limit-requests"] for answer in answers} == {str(SLOW)}
    assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")
    assert_limited(client.post(CHAT, chat()), f"{level} requests per minute")
    assert_limited(client.post(CHAT, chat(stream=True)), f"{level} requests per minute")
    assert len(all_closed(stack.dsn, tenant, 3)) == len(opened_events(stack.dsn, tenant)) == 3


@pytest.mark.parametrize(("path", "request_"), [(CHAT, chat()), ("/v1/messages", message())])
@pytest.mark.parametrize(
    ("holds", "told"),
    [
        ({"requests_burst": 1}, ("requests per minute", "0")),
        ({"requests_burst": 9, "concurrent_requests": 1}, ("concurrent requests", "8")),
        ({"requests_burst": 9, "output_tokens_max": 64, "budget_day_pico_usd": 90 * 10**6}, ("held by requests", "8")),
    ],
)
def test_a_refusal_tells_of_rates_as_an_answer_does(
    stack: Stack, path: str, request_: dict[str, object], holds: dict[str, int], told: tuple[str, str]
) -> None:
    client = stack.client(requests_per_minute=SLOW, tokens_per_minute=10**6, **holds)
    running = {"max_tokens": 64, "stream": True, "sim": {"ttft_ms": 5, "output_tokens": 4000, "tokens_per_second": 1}}
    with client.stream(path, {**request_, **running}) as stream:
        assert stream.status == 200
        answer = client.post(path, {**request_, "max_tokens": 64})
        told_to_both = {name for name in stream.headers if name.startswith("x-ratelimit-")}
    assert answer.status == 429
    assert told[0] in answer.error["message"]
    assert {name for name in answer.headers if name.startswith("x-ratelimit-")} == told_to_both
    assert len(told_to_both) == 6
    assert answer.headers["x-ratelimit-remaining-requests"] == told[1]
    assert answer.headers["x-ratelimit-limit-tokens"] == str(10**6)


@pytest.mark.parametrize("level", TENANT_LEVELS)
def test_tokens_are_limited_at_every_level(stack: Stack, store: redis.Redis, level: Level) -> None:
    tenant = stack.tenant(limits={level: {"tokens_per_minute": SLOW, "tokens_burst": 1000}})
    client = stack.gateway.http(tenant.key)
    served = 0
    while (answer := client.post(CHAT, chat(max_tokens=150, ignore_eos=True))).status == 200:
        assert answer.headers["x-ratelimit-limit-tokens"] == str(SLOW)
        settled(store, tenant)
        served += 1
    assert_limited(answer, f"{level} tokens per minute")
    used = sum(row["prompt_tokens"] + row["completion_tokens"] for row in all_closed(stack.dsn, tenant, served))
    assert 500 < used <= 1000
    left = level_of(store, tenant.id_of(level), "tokens")
    assert left == pytest.approx(1000 - used, abs=2), "what was reserved and not used was given back"


def test_the_tightest_level_decides_and_nothing_is_taken_from_the_others(stack: Stack, store: redis.Redis) -> None:
    many, few = {"requests_per_minute": SLOW, "requests_burst": 100}, {"requests_per_minute": SLOW, "requests_burst": 2}
    tenant = stack.tenant(limits={Level.ORGANIZATION: many, Level.TEAM: few, Level.USER: many})
    client = stack.gateway.http(tenant.key)
    answers = [client.post(CHAT, chat()) for _ in range(2)]
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0"]
    for _ in range(5):
        assert_limited(client.post(CHAT, chat()), "team requests per minute")
    settled(store, tenant)
    assert level_of(store, tenant.organization_id, "requests") == pytest.approx(98, abs=0.5)


def test_a_limit_for_one_model_leaves_the_others_alone(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.limit(Level.TEAM, model="other", requests_per_minute=SLOW, requests_burst=1)
    client = stack.gateway.http(tenant.key)
    assert [client.post(CHAT, chat()).status for _ in range(3)] == [200] * 3
    tenant.limit(Level.TEAM, model="sim", requests_per_minute=SLOW, requests_burst=1)
    (refused,) = wait_for(lambda: refusals(client), "the new limit takes effect")
    assert_limited(refused, "team requests per minute for sim")


def test_two_tenants_do_not_share_a_limit(stack: Stack) -> None:
    one, two = (stack.client(requests_per_minute=SLOW, requests_burst=1) for _ in range(2))
    assert [one.post(CHAT, chat()).status, one.post(CHAT, chat()).status] == [200, 429]
    assert two.post(CHAT, chat()).status == 200


@pytest.mark.parametrize(
    ("path", "request_", "param"),
    [
        (CHAT, chat("word " * 500), "messages"),
        ("/v1/completions", {"model": "sim", "prompt": "word " * 500}, "prompt"),
        (VECTORS, embedding("word " * 500), "input"),
    ],
)
def test_a_prompt_that_can_never_fit_is_too_large(
    stack: Stack, path: str, request_: dict[str, object], param: str
) -> None:
    tenant = stack.tenant(tokens_per_minute=200)
    answer = stack.gateway.http(tenant.key).post(path, request_)
    assert_refused(answer, 413, "request_exceeds_limit", param)
    assert "retry-after" not in answer.headers
    assert opened_events(stack.dsn, tenant) == []


def test_an_image_counts_by_the_piece_and_not_by_its_size(stack: Stack) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    request = {"model": "sim", "max_tokens": 5, "messages": [{"role": "user", "content": [image]}]}
    assert stack.client(tokens_per_minute=2000).post(CHAT, request).status == 200


def test_text_that_looks_like_an_image_counts_by_its_size(stack: Stack) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": f";base64,{'word ' * 10_000}"}
    request = {"model": "sim", "max_tokens": 5, "messages": [{"role": "user", "content": [image, text]}]}
    answer = stack.client(tokens_per_minute=2000).post(CHAT, request)
    assert_refused(answer, 413, "request_exceeds_limit", "messages")


def test_every_prompt_of_a_list_is_reserved_for(stack: Stack) -> None:
    client = stack.client(tokens_per_minute=1000)
    asked = {"model": "sim", "prompt": ["a"] * 16, "max_tokens": 50, "sim": {"output_tokens": 2}}
    assert client.post("/v1/completions", asked).status == 200
    limited = client.post("/v1/completions", {**asked, "prompt": ["a"] * 4})
    assert limited.status == 200, "what was reserved and not used came back"
    beside = stack.client(tokens_per_minute=1000)
    first = beside.asked("/v1/completions", asked | {"sim": {"ttft_ms": 60_000}})
    try:
        wait_for(lambda: beside.post("/v1/completions", asked).status == 429, "the first holds 16 times 50 tokens")
    finally:
        first.hang_up()


def test_more_than_was_reserved_is_a_debt_that_is_repaid_first(stack: Stack, store: redis.Redis) -> None:
    """Refilled with 1,000 tokens a second: a debt of some 2,000 bars the way for about two seconds."""
    tenant = stack.tenant(tokens_per_minute=60_000, tokens_burst=1000)
    client = stack.gateway.http(tenant.key)
    first = client.post(CHAT, chat(sim={"output_tokens": 3000}))
    assert first.document["usage"]["completion_tokens"] == 3000
    settled(store, tenant)
    assert level_of(store, tenant.key_id, "tokens") < -1900
    refused = client.post(CHAT, chat(max_tokens=1))
    assert_limited(refused, "key tokens per minute", wait_s_max=4.0)
    wait_for(lambda: client.post(CHAT, chat(max_tokens=1)).status == 200, "the debt is repaid")


def test_several_choices_are_reserved_for(stack: Stack) -> None:
    tenant = stack.tenant(tokens_per_minute=SLOW, tokens_burst=10_000)
    answer = stack.gateway.http(tenant.key).post(CHAT, chat(n=4, max_tokens=100))
    (opened,) = opened_events(stack.dsn, tenant)
    assert opened["estimate_completion_tokens"] == 400
    assert answer.document["usage"]["completion_tokens"] == 4 * 64


def test_two_replicas_admit_exactly_what_one_would(stack: Stack) -> None:
    burst = 25
    tenant = stack.tenant(limits={Level.TEAM: {"requests_per_minute": SLOW, "requests_burst": burst}})
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]

    def ask(number: int) -> Answer:
        return clients[number % 2].post(CHAT, chat(max_tokens=1))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(3 * burst)))
    admitted = [answer for answer in answers if answer.status == 200]
    assert len(admitted) == burst
    assert {answer.status for answer in answers} == {200, 429}
    assert sorted(int(answer.headers["x-ratelimit-remaining-requests"]) for answer in admitted) == list(range(burst))
    rows = all_closed(stack.dsn, tenant, burst)
    assert len({row["boot_id"] for row in rows}) == 2
    assert {str(row["event_id"]) for row in rows} == {answer.request_id for answer in admitted}
    assert len(opened_events(stack.dsn, tenant)) == burst


def test_two_replicas_do_not_reserve_more_tokens_than_there_are(stack: Stack) -> None:
    """Eight at once reserve before the first has settled: what is reserved together never exceeds the bucket."""
    tenant = stack.tenant(limits={Level.ORGANIZATION: {"tokens_per_minute": SLOW, "tokens_burst": 2000}})
    clients = [gateway.http(tenant.key) for gateway in stack.gateways]

    def ask(number: int) -> int:
        return clients[number % 2].post(CHAT, chat(model="fresh", max_tokens=400, ignore_eos=True)).status

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(ask, range(24)))
    rows = all_closed(stack.dsn, tenant, statuses.count(200))
    assert 429 in statuses
    assert 800 < sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows) <= 2000


def test_decisions_are_counted(stack: Stack) -> None:
    def count(decision: str) -> float:
        return stack.gateway.metrics().get(f'penstock_limiter_decisions_total{{decision="{decision}"}}', 0)

    granted, refused = count("granted"), count("refused")
    client = stack.client(requests_per_minute=SLOW, requests_burst=1)
    client.post(CHAT, chat())
    client.post(CHAT, chat())
    assert (count("granted"), count("refused")) == (granted + 1, refused + 1)
