"""The end of every admitted request, in one synchronous step: ledger event, buckets, metrics and log line.

Called in a `finally`; it never awaits, so nothing can cancel it, and it runs for a finished answer as for a client
that hung up, an engine that failed, or a bug.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog

from gateway.settle.checkpoints import Totals
from gateway.settle.price import cost, is_free
from gateway.settle.records import CloseRecord, OpenRecord
from gateway.units import PicoUsd, opened_at

if TYPE_CHECKING:
    from uuid import UUID

    from gateway.domain.call import Call
    from gateway.domain.principal import Principal
    from gateway.domain.usage import Status, TokenUsage
    from gateway.observe.metrics import Metrics
    from gateway.settle.ledger import Entry, Ledger
    from gateway.settle.price import PriceTable

SMALLINT_MAX = 32_767
MS_MAX = 2**31 - 1

_log = structlog.get_logger("penstock.request")


class Settles(Protocol):
    """What a request holds on the limits."""

    def settle(self, used: TokenUsage, cost: PicoUsd) -> None: ...

    def withdraw(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `served_model` and `engine` are None when no engine was tried; times in seconds."""

    status: Status
    usage: TokenUsage
    http_status: int | None
    error_code: str | None
    attempts: int
    engine: str | None
    served_model: str | None
    first_token_s: float | None
    last_token_s: float | None
    withdrawn: bool = False
    """Whether the limits are to be as if the request had never been admitted."""


class Settler:
    """Knows the prices, the ledger and the metrics."""

    def __init__(self, ledger: Ledger, prices: PriceTable, metrics: Metrics, boot_id: UUID) -> None:
        self._ledger = ledger
        self._prices = prices
        self._metrics = metrics
        self._boot_id = boot_id
        self.totals = Totals()

    def open(
        self,
        principal: Principal,
        call: Call,
        prompt_tokens: int,
        completion_tokens: int,
        total_s: float,
        worst_cost: PicoUsd,
    ) -> Entry:
        """Tell the ledger that a request was admitted: its estimate, the most it may cost. Raises as `Ledger.open`."""
        opened = opened_at(call.event_id)
        entry = self._ledger.open(
            OpenRecord(
                event_id=call.event_id,
                opened_at=opened,
                deadline_at=opened + dt.timedelta(seconds=total_s),
                boot_id=self._boot_id,
                organization_id=principal.organization_id,
                team_id=principal.team_id,
                user_id=principal.user_id,
                key_id=principal.key_id,
                model=call.model.name,
                estimate_prompt_tokens=prompt_tokens,
                estimate_completion_tokens=completion_tokens,
                endpoint=call.endpoint.value,
                streamed=call.stream,
                estimate_cost_pico_usd=worst_cost,
                session=call.session,
            )
        )
        self.totals.opened += 1
        return entry

    def settle(self, principal: Principal, call: Call, entry: Entry, reservation: Settles, outcome: Outcome) -> None:
        """Close the event, correct the buckets, count, and write the request's log line."""
        usage = outcome.usage
        served = outcome.served_model or call.model.name
        opened = entry.opened
        effective = self._prices.at(served, opened.opened_at)
        free = is_free(outcome.engine, outcome.status, usage.prompt, call.endpoint.value)
        amount = PicoUsd(0) if effective is None or free else cost(effective.price, usage)
        now_s = time.monotonic()
        duration_s = now_s - call.started_s
        ttft_s = None if outcome.first_token_s is None else outcome.first_token_s - call.started_s
        self._ledger.close(
            entry,
            CloseRecord(
                event_id=opened.event_id,
                opened_at=opened.opened_at,
                boot_id=opened.boot_id,
                organization_id=opened.organization_id,
                team_id=opened.team_id,
                user_id=opened.user_id,
                key_id=opened.key_id,
                model=opened.model,
                served_model=served,
                engine=outcome.engine,
                endpoint=call.endpoint.value,
                session=call.session,
                streamed=call.stream,
                attempts=min(outcome.attempts, SMALLINT_MAX),
                prompt_tokens=usage.prompt,
                cached_tokens=usage.cached,
                completion_tokens=usage.completion,
                reasoning_tokens=usage.reasoning,
                price_id=None if effective is None else effective.price_id,
                cost_pico_usd=amount,
                status=outcome.status.value,
                coverage=usage.coverage.value,
                http_status=outcome.http_status,
                error_code=outcome.error_code,
                ttft_ms=None if ttft_s is None else _ms(ttft_s),
                duration_ms=_ms(duration_s),
            ),
        )
        if outcome.withdrawn:
            reservation.withdraw()
        else:
            reservation.settle(usage, amount)
        self.totals.add(usage, amount)
        self._count(principal, call, served, outcome, amount, ttft_s, duration_s)

    def _count(
        self,
        principal: Principal,
        call: Call,
        served: str,
        outcome: Outcome,
        amount: PicoUsd,
        ttft_s: float | None,
        duration_s: float,
    ) -> None:
        metrics, usage = self._metrics, outcome.usage
        metrics.used(principal, served, usage, amount)
        metrics.ended(principal, served, call.endpoint.value, outcome.status, duration_s)
        if call.stream and ttft_s is not None:
            metrics.first_token(served, ttft_s)
            assert outcome.first_token_s is not None
            assert outcome.last_token_s is not None
            if usage.completion > 1:
                metrics.per_token(served, (outcome.last_token_s - outcome.first_token_s) / (usage.completion - 1))
        _log.info(
            "request",
            request_id=str(call.event_id),
            organization=principal.organization,
            team=principal.team,
            user=principal.user,
            key=principal.key_public_id,
            endpoint=call.endpoint.value,
            model=call.model.name,
            engine=outcome.engine,
            stream=call.stream,
            status=outcome.status.value,
            http_status=outcome.http_status,
            error=outcome.error_code,
            attempts=outcome.attempts,
            prompt_tokens=usage.prompt,
            cached_tokens=usage.cached,
            completion_tokens=usage.completion,
            coverage=usage.coverage.value,
            ttft_ms=None if ttft_s is None else _ms(ttft_s),
            duration_ms=_ms(duration_s),
        )


def _ms(seconds: float) -> int:
    return min(max(round(seconds * 1000), 0), MS_MAX)
