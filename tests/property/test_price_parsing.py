"""Prices are exact: what is written is what is charged, or it is refused; nothing is ever rounded."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import parse_config
from gateway.settings.rates import USD_MAX, per_request, per_token
from gateway.units import PICO_USD_PER_USD

TOKENS_PER_PRICE = 10**6

MICRO_USD = st.integers(0, USD_MAX * 10**6)
PICO_USD = st.integers(0, USD_MAX * PICO_USD_PER_USD)


def plain(amount: int, digits: int) -> str:
    """Return `amount` / 10 ** `digits` as a decimal without exponent, with all its digits."""
    return f"{amount // 10**digits}.{amount % 10**digits:0{digits}d}"


@given(MICRO_USD)
def test_every_price_down_to_a_millionth_is_kept_exactly(micro_usd: int) -> None:
    rate = per_token(plain(micro_usd, 6))
    assert rate * TOKENS_PER_PRICE == Decimal(plain(micro_usd, 6)) * PICO_USD_PER_USD


@given(PICO_USD)
def test_every_price_per_request_is_kept_exactly(pico_usd: int) -> None:
    assert per_request(plain(pico_usd, 12)) == pico_usd


@given(MICRO_USD, st.integers(0, 20))
def test_trailing_zeros_and_missing_fractions_mean_nothing(micro_usd: int, zeros: int) -> None:
    text = plain(micro_usd, 6)
    assert per_token(text + "0" * zeros) == per_token(text)
    if text.endswith(".000000"):
        assert per_token(text.removesuffix(".000000")) == per_token(text)


@given(MICRO_USD, st.integers(1, 9), st.integers(0, 20))
def test_what_cannot_be_kept_is_refused_not_rounded(micro_usd: int, digit: int, zeros: int) -> None:
    with pytest.raises(ValueError, match="finer than"):
        per_token(f"{plain(micro_usd, 6)}{'0' * zeros}{digit}")


@given(st.integers(USD_MAX * 10**6 + 1, 10**18 - 1))
def test_what_is_too_large_to_be_meant_is_refused(micro_usd: int) -> None:
    with pytest.raises(ValueError, match="at most"):
        per_token(plain(micro_usd, 6))


@given(st.text())
def test_any_other_text_is_refused_or_equals_the_decimal(text: str) -> None:
    try:
        rate = per_token(text)
    except ValueError:
        return
    assert Decimal(rate) == Decimal(text) * TOKENS_PER_PRICE


@given(MICRO_USD, st.booleans())
def test_a_price_in_the_file_is_exact_quoted_or_not(micro_usd: int, quoted: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
    price = plain(micro_usd, 6)
    scalar = f'"{price}"' if quoted else price
    config = parse_config(
        "pools: {gpu: {engine: vllm, endpoints: [http://a]}}\n"
        f"models: {{m: {{pool: gpu, price: {{input: {scalar}, output: 0}}}}}}\n"
    )
    parsed = config.models["m"].price
    assert parsed is not None
    assert parsed.input_pico_usd == micro_usd
    assert parsed.cached_input_pico_usd == micro_usd
