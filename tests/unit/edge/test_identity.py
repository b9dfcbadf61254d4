"""Who sends a request, as its headers say."""

from __future__ import annotations

import pytest

from gateway.domain.addresses import TrustedProxies, parse_network
from gateway.edge.identity import TOKEN_CHARS_MAX, address_of, require_address, token_of
from gateway.errors import AddressNotAllowed, InvalidKey

NOBODY = TrustedProxies()


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer key"},
        {b"authorization": b"bearer   key "},
        {b"authorization": b"BEARER key"},
        {b"x-api-key": b" key "},
        {b"authorization": b"Basic abc", b"x-api-key": b"key"},
        {b"authorization": b"Bearer key", b"x-api-key": b"other"},
    ],
)
def test_a_token_is_found_where_clients_put_it(headers: dict[bytes, bytes]) -> None:
    assert token_of(headers) == "key"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer "},
        {b"authorization": b""},
        {b"authorization": b"key"},
        {b"x-api-key": b""},
        {b"x-api-key": b"k" * (TOKEN_CHARS_MAX + 1)},
    ],
)
def test_none_or_an_endless_one_is_refused(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(InvalidKey):
        token_of(headers)


def test_a_token_of_any_bytes_is_text() -> None:
    assert token_of({b"x-api-key": b"\xff\x00"}) == "\xff\x00"


def test_the_peer_is_the_address_that_bounds_are_counted_by() -> None:
    assert address_of({"client": ("10.0.0.1", 5), "headers": []}, NOBODY) == "10.0.0.1"
    assert address_of({"client": None, "headers": []}, NOBODY) == address_of({"headers": []}, NOBODY) == ""


def test_a_trusted_proxy_tells_the_client() -> None:
    headers = [(b"forwarded", b"for=9.9.9.9"), (b"x-forwarded-for", b"1.2.3.4"), (b"x-real-ip", b"8.8.8.8")]
    scope = {"client": ("10.0.0.1", 5), "headers": headers}
    assert address_of(scope, TrustedProxies([parse_network("10.0.0.0/8")])) == "1.2.3.4"
    assert address_of(scope, NOBODY) == "10.0.0.1"


def test_an_address_outside_is_told_and_what_to_do() -> None:
    allowed = (parse_network("10.0.0.0/8"), parse_network("2001:db8::/32"))
    for inside in ("10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1"):
        require_address(allowed, {"client": (inside, 5), "headers": []}, NOBODY)
    for outside in ("11.0.0.1", "2001:db9::1"):
        with pytest.raises(AddressNotAllowed, match=f"may not be used from {outside}; use it from where it is"):
            require_address(allowed, {"client": (outside, 5), "headers": []}, NOBODY)
    with pytest.raises(AddressNotAllowed, match="an unknown address"):
        require_address(allowed, {"client": None, "headers": []}, NOBODY)
    with pytest.raises(AddressNotAllowed):
        require_address((), {"client": ("10.0.0.1", 5), "headers": []}, NOBODY)
