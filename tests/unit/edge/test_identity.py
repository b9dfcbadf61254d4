"""Who sends a request, as its headers say."""

from __future__ import annotations

import pytest

from gateway.edge.identity import TOKEN_CHARS_MAX, address_of, token_of
from gateway.errors import InvalidKey


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
    assert address_of({"client": ("10.0.0.1", 5)}) == "10.0.0.1"
    assert address_of({"client": None}) == address_of({}) == ""
