"""Where webhooks may lead: addresses as they are given, and what their names resolve to."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from gateway.domain.addresses import parse_network
from gateway.domain.public_addresses import is_public
from gateway.errors import InvalidRequest
from gateway.notify.destination import ADDRESSES_MAX, URL_CHARS_MAX, Unreachable, checked_url, destinations

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = "93.184.216.34"
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.1.2.3"),
    *("224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
    *("::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1"),
    *("::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:0a00:0001::1", "2001:0:0a00:1::1"),
    *("64:ff9b:1::a9fe:a9fe", "::10.0.0.1", "::ffff:0:10.0.0.1", "3fff::1", "5f00::1", "192.0.0.8", "192.88.99.1"),
]  # fmt: skip


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every name resolve to given addresses."""

    def to(*addresses: str) -> None:
        async def getaddrinfo(_loop: object, _host: str, port: int, **_: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)

    return to


@pytest.mark.parametrize(
    "url",
    [
        *("", "hooks.example.com", "ftp://hooks.example.com/", "https://", "https:///path", "file:///etc/passwd"),
        *("https://user:secret@hooks.example.com/", "https://hooks.example.com/#part", "https://hooks.example.com:0/"),
        *("https://hooks.example.com:99999/", "https://hööks.example.com/", "https://hooks.example.com/a b"),
        *("https://hooks.example.com/\n", "https://[::1/", "https://" + "a" * URL_CHARS_MAX),
        *("https://a]b/", "https://a[/", "https://a..b/", "https://%2e/", "https://a,b/"),
    ],
)
def test_what_is_no_address_of_a_webhook_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_url(url)
    assert refused.value.param == "url"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://hooks.example.com/a?token=1", "http://10.0.0.1:8080", "https://[2606::1]/"])
def test_an_address_stays_as_it_was_given(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_inside_is_refused(address: str, resolves: Callable[..., None]) -> None:
    assert not is_public(ip_address(address))
    resolves(address)
    with pytest.raises(Unreachable, match="no public address"):
        await destinations("https://hooks.example.com/", ())


async def test_only_what_was_looked_at_is_connected_to(resolves: Callable[..., None]) -> None:
    resolves("10.0.0.1", PUBLIC, PUBLIC, "2606:2800:220:1::1", "fe80::1%eth0")
    (first, second) = await destinations("https://hooks.example.com/a", ())
    assert (str(first.address), first.port, first.url.host) == (PUBLIC, 443, "hooks.example.com")
    assert str(second.address) == "2606:2800:220:1::1"
    resolves(*(f"93.184.216.{number}" for number in range(1, 9)))
    assert len(await destinations("https://hooks.example.com/", ())) == ADDRESSES_MAX


async def test_the_name_that_is_looked_up_is_the_one_of_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def getaddrinfo(_loop: object, host: str, port: int, **_: object) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    # Spelled out, it is straße, which the resolver of Python takes for strasse: somebody else's.
    await destinations("https://xn--strae-oqa.example/", ())
    assert asked == ["xn--strae-oqa.example"]


async def test_private_addresses_are_for_those_who_allow_them(resolves: Callable[..., None]) -> None:
    allowed = (parse_network("10.0.0.0/8"),)
    resolves("10.0.0.1", "192.168.0.1", "::ffff:10.0.0.2")
    for url in ("http://inside/", "https://inside/"):
        assert [str(place.address) for place in await destinations(url, allowed)] == ["10.0.0.1", "10.0.0.2"]
    resolves("192.168.0.1")
    with pytest.raises(Unreachable):
        await destinations("https://inside/", allowed)


async def test_http_is_for_allowed_addresses_alone(resolves: Callable[..., None]) -> None:
    resolves(PUBLIC)
    with pytest.raises(Unreachable, match="use https"):
        await destinations("http://hooks.example.com/", (parse_network("10.0.0.0/8"),))


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_loopback_is_let_through(host: str) -> None:
    """Resolved by the real resolver, which reads numbers in many ways."""
    with pytest.raises(Unreachable):
        await destinations(f"https://{host}/", ())


async def test_a_name_that_is_not_there_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    with pytest.raises(Unreachable, match=r"hooks\.example\.com cannot be resolved: .*not known"):
        await destinations("https://hooks.example.com/", ())
