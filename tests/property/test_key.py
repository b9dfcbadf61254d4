"""Keys: what was made is read, what was mistyped is not, and only the right pepper proves a secret."""

from __future__ import annotations

import base64
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.authenticate.key import (
    ADMIN_PREFIX,
    KEY_PREFIX,
    Peppers,
    fingerprint,
    make_key,
    parse_key,
)

NO_PEPPERS = Peppers.parse("")
SHAPE = re.compile(r"sk-pst-[0-9A-Za-z]{16}_[0-9A-Za-z]{38}")

peppers_by_version = st.dictionaries(st.integers(1, 32767), st.binary(min_size=32, max_size=64), max_size=4)
prefixes = st.sampled_from([KEY_PREFIX, ADMIN_PREFIX])
characters = st.one_of(st.sampled_from(string.ascii_letters + string.digits + "_- "), st.characters())


def text_of(peppers: dict[int, bytes]) -> str:
    """Return peppers as they stand in the setting."""
    return ",".join(f"{version}:{base64.b64encode(pepper).decode()}" for version, pepper in peppers.items())


@given(peppers_by_version, prefixes)
def test_a_key_is_read_as_it_was_made(by_version: dict[int, bytes], prefix: str) -> None:
    peppers = Peppers(by_version)
    key = make_key(peppers, prefix)
    parsed = parse_key(key.text, prefix)
    assert parsed is not None
    assert parsed.public_id == key.public_id
    assert key.pepper_version == peppers.newest == max(by_version, default=0)
    assert peppers.matches(parsed.secret, key.secret_hmac, key.pepper_version)
    assert len(key.secret_hmac) == 32
    assert parsed.secret not in f"{parsed!r} {key!r}", "a secret is not in what is logged"


def test_keys_look_as_documented_and_never_repeat() -> None:
    keys = [make_key(NO_PEPPERS) for _ in range(200)]
    assert all(SHAPE.fullmatch(key.text) for key in keys)
    assert len({key.public_id for key in keys}) == len({key.secret_hmac for key in keys}) == 200


@given(st.integers(0, 61), characters)
def test_one_wrong_character_is_noticed(at: int, character: str) -> None:
    text = make_key(NO_PEPPERS).text
    wrong = text[:at] + character + text[at + 1 :]
    assert (parse_key(wrong) is None) == (wrong != text)


@given(st.integers(0, 60))
def test_two_swapped_characters_are_noticed(at: int) -> None:
    text = make_key(NO_PEPPERS).text
    wrong = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    assert (parse_key(wrong) is None) == (wrong != text)


@given(st.text())
@example(KEY_PREFIX)
@example(KEY_PREFIX + "0" * 16 + "_" + "0" * 38)
def test_any_other_text_is_no_key(text: str) -> None:
    assert parse_key(text) is None
    assert parse_key(KEY_PREFIX + text) is None
    assert len(fingerprint(text)) == 32


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "Cs"]), max_size=70))
def test_a_fingerprint_is_of_the_whole_token(text: str) -> None:
    """Also of what no UTF-8 can hold: a header may say anything."""
    assert fingerprint(text) != fingerprint(text + "x")
    assert fingerprint(text) == fingerprint(text)


def test_a_key_of_one_kind_is_not_one_of_the_other() -> None:
    assert parse_key(make_key(NO_PEPPERS).text, ADMIN_PREFIX) is None
    assert parse_key(make_key(NO_PEPPERS, ADMIN_PREFIX).text) is None


@given(peppers_by_version, peppers_by_version, st.text(max_size=40))
def test_only_the_pepper_that_signed_proves_a_secret(
    signing: dict[int, bytes], other: dict[int, bytes], secret: str
) -> None:
    peppers = Peppers(signing)
    signed = peppers.sign(secret, peppers.newest)
    assert signed is not None
    assert peppers.matches(secret, signed, peppers.newest)
    assert not peppers.matches(secret + "x", signed, peppers.newest)
    changed = signing | {peppers.newest: other[peppers.newest]} if peppers.newest in other else other
    proves = Peppers(changed).matches(secret, signed, peppers.newest)
    assert proves == (changed.get(peppers.newest) == signing.get(peppers.newest) and bool(changed) == bool(signing))


@given(peppers_by_version)
def test_peppers_are_read_as_they_were_written(by_version: dict[int, bytes]) -> None:
    peppers = Peppers.parse(f" {text_of(by_version)} ,")
    assert peppers.newest == max(by_version, default=0)
    for version, pepper in by_version.items():
        assert peppers.sign("secret", version) == Peppers({version: pepper}).sign("secret", version)
    assert peppers.sign("secret", 0) is None or not by_version, "without a pepper only while there is none at all"
    assert not any(pepper.hex() in repr(peppers) for pepper in by_version.values())


@given(st.text(), peppers_by_version)
@example("1", {})
@example("0:" + "A" * 44, {})
@example("32768:" + "A" * 44, {})
@example("²:" + "A" * 44, {})
@example("9" * 5_000 + ":" + "A" * 44, {})
@example("1:" + "A" * 42, {})
@example("1:" + "A" * 43, {})
@example(f"1:{'A' * 43}=,1:{'A' * 43}=", {})
def test_malformed_peppers_are_refused_without_quoting_them(text: str, good: dict[int, bytes]) -> None:
    said = refusal(",".join(filter(None, [text_of(good), text])))
    parts = [part for part in (part.strip() for part in text.split(",")) if part]
    if said is None:
        assert all(":" in part for part in parts)
        return
    assert "pepper" in said
    assert not any(base64.b64encode(pepper).decode() in said for pepper in good.values())
    assert not any(len(encoded) > 8 and encoded in said for encoded in (part.partition(":")[2] for part in parts))


def refusal(text: str) -> str | None:
    """Return why these are no peppers, None when they are."""
    try:
        Peppers.parse(text)
    except ValueError as error:
        return str(error)
    return None


def test_a_pepper_that_is_too_short_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        Peppers.parse("1:" + base64.b64encode(b"short").decode())
