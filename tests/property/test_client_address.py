"""The client behind proxies: whatever a client sends, it cannot say that it is somebody else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.addresses import (
    ADDRESS_CHARS_MAX,
    HOPS_MAX,
    TrustedProxies,
    parse_address,
    parse_network,
)

if TYPE_CHECKING:
    from gateway.domain.addresses import Address

INSIDE = (IPv4Network("10.0.0.0/8"), IPv6Network("fd00::/8"))
PROXIES = TrustedProxies(INSIDE)

_addresses = st.ip_addresses()
_strangers = _addresses.filter(lambda address: not _is_inside(address))
_trusted = st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8")
_junk = st.binary(max_size=40) | st.sampled_from([b"unknown", b"", b"_x", b"1.2.3", b"[::1", b"::1]:5", b"10.0.0.1:x"])


def _is_inside(address: Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in INSIDE)


def _plain(address: Address) -> str:
    mapped: Address | None = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


@st.composite
def spelt(draw: st.DrawFn, address: Address) -> bytes:
    """Return an address as some proxy writes it."""
    text = str(address)
    if isinstance(address, IPv4Address):
        text = draw(st.sampled_from([text, f"{text}:4711", f"::ffff:{text}"]))
    else:
        text = draw(st.sampled_from([text, f"[{text}]", f"[{text}]:65535", address.exploded, text.upper()]))
    return draw(st.sampled_from(["{}", " {}", "{}\t", " {} "])).format(text).encode()


@given(st.data(), st.lists(_junk, max_size=5), _strangers, st.lists(_trusted, max_size=4), _trusted)
def test_the_client_is_whom_the_first_trusted_proxy_saw(
    data: st.DataObject, junk: list[bytes], client: Address, chain: list[Address], peer: Address
) -> None:
    """The client writes what it likes; each proxy adds whom it saw, to the line or as a new one."""
    hops = [data.draw(spelt(address)) for address in (client, *chain)]
    entries = [*junk, *hops]
    cut = data.draw(st.integers(0, len(entries)))
    lines = [b",".join(part) for part in (entries[:cut], entries[cut:]) if part]
    headers = [(b"x-forwarded-for", line) for line in lines]
    headers.insert(data.draw(st.integers(0, len(headers))), (b"forwarded", b"for=9.9.9.9"))
    assert PROXIES.client_of(str(peer), headers) == _plain(client)


@given(_strangers, st.lists(st.binary(max_size=100), max_size=5))
def test_a_stranger_is_believed_nothing(peer: Address, lines: list[bytes]) -> None:
    headers = [(b"x-forwarded-for", line) for line in lines]
    assert PROXIES.client_of(str(peer), headers) == str(peer)
    assert TrustedProxies().client_of("10.0.0.1", headers) == "10.0.0.1"


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_comes_through_a_proxy_ends_in_an_address(lines: list[bytes]) -> None:
    found = PROXIES.client_of("10.9.9.9", [(b"x-forwarded-for", line) for line in lines])
    assert str(ip_address(found)) == found


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("", "10.9.9.9"),
        ("unknown", "10.9.9.9"),
        ("1.2.3.4, unknown", "10.9.9.9"),
        ("1.2.3.4,", "10.9.9.9"),
        ("1.2.3.4, 10.0.0.1, unknown, 10.0.0.2", "10.9.9.9"),
        ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
        (", ".join(["1.2.3.4", *["10.0.0.1"] * (HOPS_MAX - 1)]), "1.2.3.4"),
        (", ".join(["1.2.3.4", *["10.0.0.1"] * HOPS_MAX]), "10.0.0.1"),
    ],
)
def test_what_is_no_chain_of_addresses(header: str, client: str) -> None:
    assert PROXIES.client_of("10.9.9.9", [(b"x-forwarded-for", header.encode())]) == client


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7\t", "203.0.113.7"),
        ("203.0.113.7:80", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::FFFF:cb00:7107]:80", "203.0.113.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:65535", "fe80::1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    [
        *("", "unknown", "1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.4/8", "1", "0x7f.1", "localhost"),
        *("1.2.3.4:", "1.2.3.4:x", "1.2.3.4:65536", "1.2.3.4:-1", "1.2.3.4%eth0", "[1.2.3.4]:80", "\u0661.2.3.4"),
        *("[::1", "::1]", "[::1]80", "[::1]:", "[]", "[]:80", ":::", "1:2:3:4:5:6:7:8:9", "1.2.3.4:\u0661"),
        "fe80::1%" + "x" * ADDRESS_CHARS_MAX,
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text) is None


def test_networks_are_read_as_people_write_them() -> None:
    assert parse_network("10.0.0.0/8") == IPv4Network("10.0.0.0/8")
    assert parse_network(" 203.0.113.7 ") == IPv4Network("203.0.113.7/32")
    assert parse_network("2001:db8::/32") == IPv6Network("2001:db8::/32")
    assert parse_network("::ffff:10.0.0.0/104") == IPv4Network("10.0.0.0/8")
    assert parse_network("::1") == IPv6Network((IPv6Address("::1"), 128))


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "::1%eth0", "1" * 100, "10/8"])
def test_what_is_no_network_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
        parse_network(text)
