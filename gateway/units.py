"""Units that money, time and identity are counted in: pico-USD, tokens, event ids, clocks.

Leaf module: plain integers under names, and the few functions that make or convert them.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from decimal import Decimal, localcontext
from typing import NewType
from uuid import UUID

from asyncpg.pgproto import pgproto

PicoUsd = NewType("PicoUsd", int)
"""Money: 10^-12 US dollars, so that one token at $0.000001 per million tokens still costs a whole unit."""

PICO_USD_PER_USD = 10**12


def new_event_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of Unix time in milliseconds, then 74 random bits.

    Event ids sort by time, and the time inside the id is the request's `opened_at` (see `opened_at`), so a retried
    write of one event always meets its own primary key.
    """
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return pgproto.UUID(value.to_bytes(16, "big"))  # a UUID that is made and spelled out in a tenth of the time


def opened_at(event_id: UUID) -> dt.datetime:
    """Return the time inside a UUIDv7, in UTC, to the millisecond."""
    return dt.datetime.fromtimestamp((event_id.int >> 80) / 1000, dt.UTC)


def event_ids_between(begin: dt.datetime, end: dt.datetime) -> tuple[UUID, UUID]:
    """Return ids such that all events opened from `begin` up to `end` are at or above the first and below the second.

    Others may be between them, too, if they were opened in the same millisecond as `begin` or `end`. Ids begin in 1970.
    """
    epoch = dt.datetime.fromtimestamp(0, dt.UTC)
    first, last = (max((moment - epoch) // dt.timedelta(milliseconds=1), 0) for moment in (begin, end))
    return UUID(int=first << 80), UUID(int=(last + 1) << 80)


def usd(amount: PicoUsd) -> Decimal:
    """Return an amount in US dollars, exact."""
    with localcontext() as context:
        context.prec = 60
        return (Decimal(amount) / PICO_USD_PER_USD).normalize() + Decimal(0)


def format_usd(amount: PicoUsd) -> str:
    """Return an exact amount in US dollars without exponent, for people and JSON: `0.0000123`."""
    return f"{usd(amount):f}"
