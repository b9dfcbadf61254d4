"""Where webhooks lead in truth: to the address that was looked at, and nowhere an answer or an environment says."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from gateway.domain.addresses import parse_network
from tests.support.tls import Authority, TlsProxy
from tests.support.webhooks import LOOPBACK, Receiver, make_webhook

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.post_office import PostOffice


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_lead_nowhere(office: PostOffice, receiver: Receiver, status: int) -> None:
    with Receiver() as inside:
        webhook = await make_webhook(office.dsn, receiver.url)
        await office.ping(webhook)
        receiver.answers.append((status, {"location": inside.url}))
        await office.deliver()
        (delivery,) = await office.shown(webhook)
        assert "redirects are not followed" in str(delivery.last_error)
        assert inside.received == []


async def test_what_is_not_public_is_not_even_connected_to(office: PostOffice, receiver: Receiver) -> None:
    urls = [receiver.url, f"https://127.0.0.1:{receiver.port}/", f"https://localhost:{receiver.port}/"]
    webhooks = [await make_webhook(office.dsn, url) for url in urls]
    for webhook in webhooks:
        await office.ping(webhook)
    await office.deliver(allowed=())
    for webhook in webhooks:
        (delivery,) = await office.shown(webhook)
        assert "no public address" in str(delivery.last_error)
        assert delivery.status == "failing"
    assert receiver.received == []


async def test_a_proxy_of_the_environment_is_not_asked(
    office: PostOffice, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        await office.ping(await make_webhook(office.dsn, receiver.url))
        await office.deliver()
        assert (len(receiver.received), len(proxy.received)) == (1, 0)


async def test_the_certificate_is_held_against_the_name(office: PostOffice, receiver: Receiver, tmp_path: Path) -> None:
    """Although the connection is to an address, which is in no certificate."""
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=authority.certificate)
    with TlsProxy(receiver.url, authority.context(authority.issue("localhost"))) as front:
        named, by_address = [
            await make_webhook(office.dsn, f"https://{host}:{front.port}/hook") for host in ("localhost", "127.0.0.1")
        ]
        for webhook in (named, by_address):
            await office.ping(webhook)
        await office.deliver(allowed=(*LOOPBACK, parse_network("::1")), tls=trusting)
    (got,) = receiver.received
    assert got.verified(named.secret)
    assert got.headers["host"] == f"localhost:{front.port}"
    (refused,) = await office.shown(by_address)
    assert "certificate" in str(refused.last_error).lower()
