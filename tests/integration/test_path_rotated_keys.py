"""Keys that are rotated, ended, or held to addresses, on two replicas behind proxies that they trust."""

from __future__ import annotations

import datetime as dt
import http.client
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from gateway.admin.key_changes import KeyChange
from gateway.admin.limit_values import REMOVED
from tests.support.chat import chat
from tests.support.effects import CHAT, assert_acts, clients_of, hears, refused
from tests.support.http import Answer
from tests.support.refusals import assert_refused
from tests.support.stack import Stack, running_stack
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.dev.servers import ServerAddresses
    from tests.support.http import Http
    from tests.support.servers import Databases

GRACE_S = 1.5
INSIDE, OUTSIDE = "203.0.113.9", "198.51.100.7"
HELD = KeyChange(addresses=("203.0.113.0/24", "2001:db8:1::/48"))


@pytest.fixture(scope="module")
def stack(databases: Databases, servers: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two replicas that trust a proxy on 127.0.0.1, and further ones in 10.0.0.0/8."""
    folder = tmp_path_factory.mktemp("rotated")
    with running_stack(databases, servers, folder, replicas=2, trusted_proxies="127.0.0.1, 10.0.0.0/8") as running:
        wait_for(lambda: all(hears(replica.log_lines()) for replica in running.gateways), "changes are heard")
        yield running


def works(answer: Answer) -> bool:
    return answer.status == 200


def refusals(client: Http) -> list[Answer]:
    """Ask once and return the answer if it is a refusal."""
    return [answer for answer in (client.post(CHAT, chat(max_tokens=1)),) if answer.status != 200]


def through(client: Http, forwarded: str, path: str = CHAT) -> Answer:
    """Ask as a proxy on 127.0.0.1 does for whom it names."""
    return client.post(path, chat(max_tokens=1), {"x-forwarded-for": forwarded})


def past_the_proxy(client: Http, forwarded: str) -> Answer:
    """Ask from 127.0.0.2, which is no trusted proxy, and claim to be one."""
    connection = http.client.HTTPConnection(client.host, client.port, timeout=10, source_address=("127.0.0.2", 0))
    try:
        headers = {"authorization": f"Bearer {client.key}", "x-forwarded-for": forwarded}
        connection.request("GET", "/v1/models", headers=headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def test_both_texts_of_a_rotated_key_work_until_the_grace_is_over(stack: Stack) -> None:
    tenant = stack.tenant()
    old = clients_of(stack, tenant.key)
    rotated_s = time.monotonic()
    new_text = tenant.rotate(dt.timedelta(seconds=GRACE_S))
    new = [gateway.http(new_text) for gateway in stack.gateways]
    assert all(works(client.post(CHAT, chat(max_tokens=1))) for client in new)
    for client in old:
        assert works(client.get("/v1/models")) or time.monotonic() - rotated_s > GRACE_S
    for client in old:
        (answer,) = wait_for(partial(refusals, client), "the grace is over", 5.0)
        assert_refused(answer, 401, "invalid_api_key")
        assert "was replaced by a new one, and counts no longer since" in answer.error["message"]
    assert time.monotonic() - rotated_s >= GRACE_S
    assert all(works(client.post(CHAT, chat(max_tokens=1))) for client in new)


def test_what_a_second_rotation_ends_is_refused_within_a_second(stack: Stack) -> None:
    tenant = stack.tenant()
    oldest = clients_of(stack, tenant.key)
    middle = clients_of(stack, tenant.rotate())
    assert all(works(client.post(CHAT, chat(max_tokens=1))) for client in oldest)
    assert_acts(oldest, tenant.rotate, refused)
    assert "not valid" in oldest[0].get("/v1/models").error["message"], "it is nobody's any more"
    assert all(works(client.post(CHAT, chat(max_tokens=1))) for client in middle)
    assert_acts(middle, partial(tenant.rotate, dt.timedelta(0)), refused)


def test_a_revocation_ends_both_texts_within_a_second_and_says_so(stack: Stack) -> None:
    tenant = stack.tenant()
    old = clients_of(stack, tenant.key)
    new = clients_of(stack, tenant.rotate())
    assert_acts([*old, *new], tenant.revoke, refused)
    for client in (*old, *new):
        answer = client.post(CHAT, chat())
        assert_refused(answer, 401, "invalid_api_key")
        assert "this API key was revoked on 20" in answer.error["message"]
    told = new[0].post("/v1/messages", chat(max_tokens=1), {"x-api-key": new[0].key or ""})
    assert told.error["type"] == "authentication_error"
    assert "was revoked on" in told.error["message"]
    before = [gateway.metrics()['penstock_key_lookups_total{result="revoked"}'] for gateway in stack.gateways]
    assert all(count >= 3 for count in before)


def test_a_key_is_held_to_addresses_within_a_second(stack: Stack) -> None:
    tenant = stack.tenant()
    clients = clients_of(stack, tenant.key)
    assert_acts(clients, lambda: tenant.change(HELD), lambda answer: answer.status == 403)
    for client in clients:
        for inside in (INSIDE, f"{INSIDE}:4711", f"{OUTSIDE}, {INSIDE}, 10.1.2.3", "[2001:db8:1::5]:443"):
            assert works(through(client, inside)), inside
        for outside in (OUTSIDE, f"{INSIDE}, {OUTSIDE}", f"{INSIDE}, {OUTSIDE}, 10.1.2.3, 127.0.0.1", "2001:db8:2::5"):
            answer = through(client, outside)
            assert_refused(answer, 403, "address_not_allowed")
            seen = outside if "," not in outside else OUTSIDE
            assert f"may not be used from {seen}; use it from where it is allowed" in answer.error["message"]
    assert_acts(clients, lambda: tenant.change(KeyChange(addresses=REMOVED)), works)


@pytest.mark.parametrize("forwarded", ["", "unknown", f"{INSIDE}, unknown", f"{INSIDE},", f"{INSIDE}:x", "\xff\xfe"])
def test_a_malformed_chain_is_the_proxy_itself(stack: Stack, forwarded: str) -> None:
    tenant = stack.tenant()
    tenant.change(HELD)
    answer = through(stack.gateway.http(tenant.key), forwarded)
    assert_refused(answer, 403, "address_not_allowed")
    assert "may not be used from 127.0.0.1;" in answer.error["message"]


def test_who_is_no_trusted_proxy_is_not_believed(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.change(HELD)
    answer = past_the_proxy(stack.gateway.http(tenant.key), INSIDE)
    assert_refused(answer, 403, "address_not_allowed")
    assert "may not be used from 127.0.0.2;" in answer.error["message"]
    tenant.change(KeyChange(addresses=("127.0.0.2",)))
    client = stack.gateway.http(tenant.key)
    wait_for(lambda: works(past_the_proxy(client, OUTSIDE)), "the change acts")


def test_lines_of_several_proxies_are_one_chain(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.change(HELD)
    start = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n"
    for lines, status in (((OUTSIDE, INSIDE), 200), ((INSIDE, OUTSIDE), 403), ((INSIDE, "10.1.2.3"), 200)):
        with stack.gateway.http().raw() as connection:
            headers = "".join(f"x-forwarded-for: {line}\r\n" for line in lines)
            connection.send(f"{start}{headers}forwarded: for={INSIDE}\r\n\r\n".encode())
            assert connection.answer().status == status, lines


def test_every_endpoint_and_dialect_asks_for_the_address(stack: Stack) -> None:
    tenant = stack.tenant()
    tenant.change(HELD)
    client, headers = stack.gateway.http(tenant.key), {"x-forwarded-for": OUTSIDE}
    for path in ("/v1/models", "/v1/models/sim"):
        assert_refused(client.get(path, headers), 403, "address_not_allowed")
        assert works(client.get(path, {"x-forwarded-for": INSIDE}))
    for path in ("/v1/completions", "/v1/embeddings", "/v1/responses"):
        assert_refused(through(client, OUTSIDE, path), 403, "address_not_allowed")
    answer = through(client, OUTSIDE, "/v1/messages")
    assert (answer.status, answer.error["type"]) == (403, "permission_error")
    assert (answer.error["code"], answer.headers["x-should-retry"]) == ("address_not_allowed", "false")
