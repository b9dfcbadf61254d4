"""What a rule of limits may say, as it comes in: bounds, money in exact decimals, and how one value is taken away."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from gateway.errors import InvalidRequest
from gateway.settings import rates
from gateway.units import PICO_USD_PER_USD, PicoUsd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.domain.principal import BudgetPeriod

LIMIT_MAX: Final = 10**12
CONCURRENT_REQUESTS_MAX: Final = 1_000_000
OUTPUT_TOKENS_MAX: Final = 10_000_000
BUDGET_MAX: Final = rates.BUDGET_USD_MAX * PICO_USD_PER_USD
_MAXIMA: Final = {"concurrent_requests": CONCURRENT_REQUESTS_MAX, "output_tokens_max": OUTPUT_TOKENS_MAX}


class _Removal(Enum):
    REMOVED = "removed"


REMOVED: Final = _Removal.REMOVED
"""In the place of a value: the rule shall have none."""

Removal: TypeAlias = Literal[_Removal.REMOVED]
Count: TypeAlias = int | Removal | None
Money: TypeAlias = PicoUsd | Removal | None


@dataclass(frozen=True, slots=True)
class LimitValues:
    """What a rule allows, named as its columns; None leaves a value as it is, REMOVED takes it away.

    A burst is a bucket's capacity, by default one minute's worth; a rate that is removed takes its burst with it.
    Budgets are amounts in pico-USD (see `budget_amount`), each for its period or for each session; 0 lets nothing
    through that costs.

    Raises InvalidRequest unless every value is a whole number from 1 to LIMIT_MAX, CONCURRENT_REQUESTS_MAX or
    OUTPUT_TOKENS_MAX, a budget from 0 to BUDGET_MAX.
    """

    requests_per_minute: Count = None
    requests_burst: Count = None
    tokens_per_minute: Count = None
    tokens_burst: Count = None
    input_tokens_per_minute: Count = None
    input_tokens_burst: Count = None
    output_tokens_per_minute: Count = None
    output_tokens_burst: Count = None
    concurrent_requests: Count = None
    output_tokens_max: Count = None
    budget_day_pico_usd: Money = None
    budget_week_pico_usd: Money = None
    budget_month_pico_usd: Money = None
    budget_session_pico_usd: Money = None
    budget_stops_streams: bool | None = None

    @classmethod
    def of(cls, values: Mapping[str, Count]) -> Self:
        """Return values given by their names."""
        return cls(**values)  # type: ignore[arg-type] # every field takes what Count is made of, under another name

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None or value is REMOVED or one.name == "budget_stops_streams":
                continue
            lowest = 0 if one.name.startswith("budget_") else 1
            highest = _MAXIMA.get(one.name, BUDGET_MAX if lowest == 0 else LIMIT_MAX)
            if not lowest <= value <= highest:
                raise InvalidRequest(f"{one.name} must be {lowest} to {highest:,}", param=one.name)

    def __bool__(self) -> bool:
        return bool(self.given())

    def given(self) -> dict[str, int | bool | None]:
        """Return what is to be written, by column: None where a value is taken away."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        for unit in RATE_UNITS:
            if values[f"{unit}_per_minute"] is REMOVED and values[f"{unit}_burst"] is None:
                values[f"{unit}_burst"] = REMOVED
        return {name: None if value is REMOVED else value for name, value in values.items() if value is not None}


RATE_UNITS: Final = ("requests", "tokens", "input_tokens", "output_tokens")
COLUMNS: Final = tuple(LimitValues.__annotations__)


def budget_column(period: BudgetPeriod) -> str:
    """Return the column, and the field of LimitValues, that holds the budget of a period."""
    return f"budget_{period}_pico_usd"


def budget_amount(text: str, param: str) -> PicoUsd:
    """Return a budget written in USD, such as "25.50", in pico-USD.

    Raises InvalidRequest, naming `param`, for anything but a plain decimal number from 0 to 5,000,000 with at most nine
    digits after the point.
    """
    try:
        return rates.budget(text.strip())
    except ValueError as error:
        raise InvalidRequest(f"{param} {error}", param=param) from None
