"""Which limits apply to a request, as what to take from Redis; pure, and worked out once per key and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import msgspec

from gateway.admit.bucket import Bucket, Weights
from gateway.admit.budget import BudgetTerms, nano_usd
from gateway.admit.budget_keys import SESSION_KEPT_S, period_keys
from gateway.domain.principal import BudgetPeriod, ConcurrencyLimit, Level, Limit, LimitUnit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.admit.budget_keys import PeriodKeys
    from gateway.domain.config import ModelConfig, TokenWeights
    from gateway.domain.principal import Budget, Principal

LEASE_MS = 30_000
"""How long a place among concurrent requests lasts that nobody renews: its replica has died."""

CONCURRENCY_WAIT_MS = 1_000
BUDGET_WAIT_MS = 5_000
"""What a refusal says to wait where no refill tells: until others' requests may have ended, or cost less than held."""

_DAY_MS = 86_400_000
_DEPLOYMENT = UUID(int=0)


@dataclass(slots=True, eq=False)
class LimitSet:
    """All limits of one principal and model, or of one model, with what Redis needs to know of them, encoded once.

    `tag` is the Redis Cluster hash tag: all keys of an organization, or of a model, live on one slot. No key has a
    limit's numbers in it: a limit that is raised or lowered goes on from where it is.
    """

    tag: str
    limits: tuple[Limit, ...]
    buckets: tuple[Bucket, ...]
    keys: tuple[str, ...]
    spec_json: bytes
    concurrency: tuple[ConcurrencyLimit, ...]
    lease_keys: tuple[str, ...]
    budgets: tuple[Budget, ...]
    session_budgets: tuple[Budget, ...]
    """The last ones of `budgets`: those that each session has of its own."""
    terms: tuple[BudgetTerms, ...]
    terms_json: bytes | None
    """What reserve.lua is told of leases and budgets, None where there are neither."""
    organization_id: UUID
    reservations: str
    """What the keys of reservations begin with."""
    fixed_keys: tuple[str, ...]
    """The keys that all requests share: buckets, then leases. Those of budgets follow the calendar."""
    key_count: int
    """How many keys a script is told: the reservation, the buckets, the leases, and two for each budget."""
    by_unit: tuple[tuple[bytes, tuple[int, ...]], ...]
    """Of each unit that a limit counts, its name in headers, and which limits count it."""
    _periods: PeriodKeys | None = None

    def reservation_key(self, event_id: str) -> str:
        """Return the Redis key of one request's reservation."""
        return self.reservations + event_id

    def period_keys(self, opened_ms: int, session: str | None = None) -> PeriodKeys:
        """Return the budgets' keys for a request opened at a Unix time in milliseconds, in this session.

        Those of days, weeks and months are worked out once a day, those of the session each time.
        """
        day = opened_ms // _DAY_MS
        known = self._periods
        if known is None or known.day != day:
            dated = self.budgets[: len(self.budgets) - len(self.session_budgets)]
            known = self._periods = period_keys(self.organization_id, dated, day)
        if not self.session_budgets:
            return known
        assert session is not None, "only requests in a session have its budgets"
        return known.and_those(period_keys(self.organization_id, self.session_budgets, day, session))

    def name(self, index: int) -> str:
        """Return how a refusal names a limit: buckets, leases and budgets are counted through."""
        names = [each.name for each in self.limits]
        names += (each.name for each in self.concurrency)
        names += (each.name for each in self.budgets)
        return names[index]

    def is_of_session(self, index: int) -> bool:
        """Whether a limit, counted as `name` does, is a budget of sessions."""
        return index >= len(self.limits) + len(self.concurrency) + len(self.budgets) - len(self.session_budgets)

    def headers(self, levels: Sequence[int]) -> list[tuple[bytes, bytes]]:
        """Return `x-ratelimit-{limit,remaining,reset}-…` of the tightest bucket of each unit, by the buckets' levels.

        `reset` is the time until that bucket is full again, as a duration such as `1.5s`.
        """
        headers: list[tuple[bytes, bytes]] = []
        for name, indexes in self.by_unit:
            tightest = indexes[0] if len(indexes) == 1 else min(indexes, key=levels.__getitem__)
            level, bucket = levels[tightest], self.buckets[tightest]
            reset_s = (bucket.capacity - level) / bucket.refill_per_s
            headers += (
                (b"x-ratelimit-limit-" + name, b"%d" % self.limits[tightest].per_minute),
                (b"x-ratelimit-remaining-" + name, b"%d" % max(level, 0)),
                (b"x-ratelimit-reset-" + name, b"%.3fs" % reset_s),
            )
        return headers

    def __bool__(self) -> bool:
        return bool(self.keys) or self.terms_json is not None


class Applicable(NamedTuple):
    """All that a request must pass. `deployment`: the model's own limits over all tenants, None where it has none.

    `tenant` is for requests in no session; `in_session` has the budgets of sessions, too, and is None without any.
    Capacities are the tightest of all buckets that count tokens, input and output alike, input alone, or output alone;
    None where there is no such bucket.
    """

    tenant: LimitSet
    in_session: LimitSet | None
    deployment: LimitSet | None
    token_capacity: float | None
    input_capacity: float | None
    output_capacity: float | None


def applicable(principal: Principal, model: ModelConfig) -> Applicable:
    """Return what a request of `principal` for `model` must pass."""
    tenant, in_session = limit_set(principal, model), None
    if any(
        budget.period is BudgetPeriod.SESSION and budget.model in (None, model.name) for budget in principal.budgets
    ):
        in_session = limit_set(principal, model, in_session=True)
    deployment = deployment_set(model)
    sets = (tenant,) if deployment is None else (tenant, deployment)

    def tightest(unit: LimitUnit) -> float | None:
        return min(
            (
                bucket.capacity
                for one in sets
                for bucket, limit in zip(one.buckets, one.limits, strict=True)
                if limit.unit is unit
            ),
            default=None,
        )

    return Applicable(
        tenant,
        in_session,
        deployment,
        tightest(LimitUnit.TOKENS),
        tightest(LimitUnit.INPUT_TOKENS),
        tightest(LimitUnit.OUTPUT_TOKENS),
    )


def limit_set(principal: Principal, model: ModelConfig, *, in_session: bool = False) -> LimitSet:
    """Return the tenant's limits that a request of `principal` for `model` must pass, widest level first."""
    either = (None, model.name)
    budgets = [budget for budget in principal.budgets if budget.model in either]
    return _limit_set(
        principal.organization_id.hex,
        principal.organization_id,
        [limit for limit in principal.limits if limit.model in either],
        [limit for limit in principal.concurrency_limits if limit.model in either],
        [budget for budget in budgets if budget.period is not BudgetPeriod.SESSION],
        [budget for budget in budgets if budget.period is BudgetPeriod.SESSION and in_session],
        model.weights,
    )


def deployment_set(model: ModelConfig) -> LimitSet | None:
    """Return a model's own limits over all tenants, None when it has none."""
    of = model.limits
    rates = (
        (LimitUnit.REQUESTS, of.requests_per_minute, of.requests_burst),
        (LimitUnit.TOKENS, of.tokens_per_minute, of.tokens_burst),
        (LimitUnit.INPUT_TOKENS, of.input_tokens_per_minute, of.input_tokens_burst),
        (LimitUnit.OUTPUT_TOKENS, of.output_tokens_per_minute, of.output_tokens_burst),
    )
    limits = [
        Limit(Level.DEPLOYMENT, _DEPLOYMENT, unit, per_minute, burst or per_minute, model.name)
        for unit, per_minute, burst in rates
        if per_minute is not None
    ]
    concurrency = (
        []
        if of.concurrent_requests is None
        else [ConcurrencyLimit(Level.DEPLOYMENT, _DEPLOYMENT, of.concurrent_requests, model.name)]
    )
    if not limits and not concurrency:
        return None
    return _limit_set(f"model:{model.name}", _DEPLOYMENT, limits, concurrency, [], [], model.weights)


def _limit_set(
    tag: str,
    organization_id: UUID,
    limits: Sequence[Limit],
    concurrency: Sequence[ConcurrencyLimit],
    dated_budgets: Sequence[Budget],
    session_budgets: Sequence[Budget],
    weights: TokenWeights,
) -> LimitSet:
    budgets = (*dated_budgets, *session_budgets)
    buckets = tuple(Bucket(float(each.burst), each.per_minute / 60, _weights(each.unit, weights)) for each in limits)
    spec = [[bucket.capacity, bucket.refill_per_s, *bucket.weights] for bucket in buckets]
    terms = tuple(
        BudgetTerms(nano_usd(budget.amount), budget.stops_streams, kept_ms)
        for some, kept_ms in ((dated_budgets, 0), (session_budgets, SESSION_KEPT_S * 1000))
        for budget in some
    )
    told = [
        LEASE_MS,
        CONCURRENCY_WAIT_MS,
        BUDGET_WAIT_MS,
        [limit.requests for limit in concurrency],
        [term.told() for term in terms],
    ]
    keys = tuple(f"pst:{{{tag}}}:b:{each.subject_id.hex}:{each.unit}:{each.model or ''}" for each in limits)
    lease_keys = tuple(f"pst:{{{tag}}}:l:{each.subject_id.hex}:{each.model or ''}" for each in concurrency)
    return LimitSet(
        tag=tag,
        limits=tuple(limits),
        buckets=buckets,
        keys=keys,
        spec_json=msgspec.json.encode(spec),
        concurrency=tuple(concurrency),
        lease_keys=lease_keys,
        budgets=budgets,
        session_budgets=tuple(session_budgets),
        terms=terms,
        terms_json=msgspec.json.encode(told) if concurrency or budgets else None,
        organization_id=organization_id,
        reservations=f"pst:{{{tag}}}:r:",
        fixed_keys=keys + lease_keys,
        key_count=1 + len(keys) + len(lease_keys) + 2 * len(budgets),
        by_unit=tuple(
            (unit.value.encode(), indexes)
            for unit in LimitUnit
            if (indexes := tuple(index for index, each in enumerate(limits) if each.unit is unit))
        ),
    )


def _weights(unit: LimitUnit, weights: TokenWeights) -> Weights:
    match unit:
        case LimitUnit.REQUESTS:
            return (1.0, 0.0, 0.0, 0.0)
        case LimitUnit.TOKENS:
            return (0.0, weights.input, weights.cached_input, weights.output)
        case LimitUnit.INPUT_TOKENS:
            return (0.0, weights.input, weights.cached_input, 0.0)
        case LimitUnit.OUTPUT_TOKENS:
            return (0.0, 0.0, 0.0, weights.output)
