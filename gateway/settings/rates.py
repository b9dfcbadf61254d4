"""Prices and budgets as people write them, into exact integers: decimal text in, pico-USD out, no binary float between.

An amount that cannot be held exactly is an error, never rounded.
"""

from __future__ import annotations

import re

from gateway.units import PicoUsd

USD_MAX = 1_000_000
"""Largest price accepted, per million tokens or per request: more is a slip of units, not a price."""

BUDGET_USD_MAX = 5_000_000
"""Largest budget accepted: in nano-USD, as Redis counts it, twice this is still exact in a double of 53 bits."""

WHOLE_DIGITS_MAX = 12
"""More are never read as a number."""

_DECIMAL = re.compile(r"(?P<whole>[0-9]+)(?:\.(?P<fraction>[0-9]{1,40}))?")


def _scaled(text: object, digits: int, finest: str, usd_max: int = USD_MAX) -> PicoUsd:
    """Return the decimal in `text` times 10 ** `digits`, exact."""
    match = _DECIMAL.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError('must be a plain decimal number in USD, such as "0.20"')
    fraction = (match["fraction"] or "").rstrip("0")
    if len(fraction) > digits:
        raise ValueError(f"is finer than {finest}, the smallest unit of money kept")
    whole = match["whole"].lstrip("0") or "0"
    too_large = f"is too large: at most {usd_max} USD"
    if len(whole) > WHOLE_DIGITS_MAX:
        raise ValueError(too_large)
    amount = int(whole) * 10**digits + int(fraction.ljust(digits, "0") or 0)
    if amount > usd_max * 10**digits:
        raise ValueError(too_large)
    return PicoUsd(amount)


def per_token(text: object) -> PicoUsd:
    """Return a price in USD per million tokens as pico-USD per token: "0.20" is 200000.

    Raises ValueError for anything but a plain decimal (no sign, no exponent), and for prices finer than 0.000001 USD
    per million tokens, which is one pico-USD per token.
    """
    return _scaled(text, 6, "0.000001 USD per million tokens")


def per_request(text: object) -> PicoUsd:
    """Return a price in USD per request in pico-USD. Raises ValueError as `per_token` does, below 10^-12 USD."""
    return _scaled(text, 12, "0.000000000001 USD per request")


def budget(text: object) -> PicoUsd:
    """Return an amount in USD in pico-USD. Raises ValueError as `per_token` does, below 10^-9 USD (nano-USD)."""
    return PicoUsd(_scaled(text, 9, "0.000000001 USD", BUDGET_USD_MAX) * 1000)
