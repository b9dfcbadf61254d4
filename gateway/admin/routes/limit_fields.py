"""The fields of request bodies that say what is allowed, where a limit is set and where a key is made with limits."""

from typing import Annotated, TypeAlias

from pydantic import Field

from gateway.admin.limit_values import REMOVED, Count, LimitValues, Money, budget_amount
from gateway.admin.routes.context import Wanted

_Usd: TypeAlias = Annotated[str, Field(max_length=40, description='Exact decimal text such as "25.50".')]


class WantedLimits(Wanted):
    """What is allowed. A value left out stays as it is; null takes it away."""

    requests_per_minute: int | None = None
    requests_burst: int | None = None
    tokens_per_minute: int | None = None
    tokens_burst: int | None = None
    input_tokens_per_minute: int | None = None
    input_tokens_burst: int | None = None
    output_tokens_per_minute: int | None = None
    output_tokens_burst: int | None = None
    concurrent_requests: int | None = None
    output_tokens_max: int | None = None
    budget_day_usd: _Usd | None = None
    budget_week_usd: _Usd | None = None
    budget_month_usd: _Usd | None = None
    budget_session_usd: _Usd | None = None
    budget_stops_streams: bool | None = None

    def values(self) -> LimitValues:
        """Return what is to be changed. Raises InvalidRequest for a value out of its bounds."""
        return LimitValues(
            requests_per_minute=self._count("requests_per_minute"),
            requests_burst=self._count("requests_burst"),
            tokens_per_minute=self._count("tokens_per_minute"),
            tokens_burst=self._count("tokens_burst"),
            input_tokens_per_minute=self._count("input_tokens_per_minute"),
            input_tokens_burst=self._count("input_tokens_burst"),
            output_tokens_per_minute=self._count("output_tokens_per_minute"),
            output_tokens_burst=self._count("output_tokens_burst"),
            concurrent_requests=self._count("concurrent_requests"),
            output_tokens_max=self._count("output_tokens_max"),
            budget_day_pico_usd=self._budget("budget_day_usd"),
            budget_week_pico_usd=self._budget("budget_week_usd"),
            budget_month_pico_usd=self._budget("budget_month_usd"),
            budget_session_pico_usd=self._budget("budget_session_usd"),
            budget_stops_streams=bool(self.budget_stops_streams) if self._given("budget_stops_streams") else None,
        )

    def _given(self, name: str) -> bool:
        return name in self.model_fields_set

    def _count(self, name: str) -> Count:
        value: int | None = getattr(self, name)
        return REMOVED if value is None and self._given(name) else value

    def _budget(self, name: str) -> Money:
        text: str | None = getattr(self, name)
        if text is None:
            return REMOVED if self._given(name) else None
        return budget_amount(text, name)
