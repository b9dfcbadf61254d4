"""Admission: one principal, one call, one question to Redis, and a reservation that cannot be dropped unaccounted.

While Redis is away the deployment's policy decides: enforce this replica's share locally, refuse, or enforce nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol

from gateway.admit.bucket import NOTHING, Refusal, UsageVector
from gateway.admit.budget import nano_usd, pico_usd
from gateway.admit.claim import Answer, Claim, Exceeded, Granted, Unknown
from gateway.admit.fallback import Fallback
from gateway.admit.fitting import fitted
from gateway.admit.learning import Learning
from gateway.admit.policy import Applicable, applicable
from gateway.admit.reservation import Holder, Reservation
from gateway.admit.worst_cost import Prices, worst_cost
from gateway.errors import (
    BudgetExceeded,
    BudgetUnknown,
    InstructionsExceedLimit,
    LimiterUnavailable,
    LimitExceeded,
    RequestExceedsLimit,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.admit.bucket_store import BucketStore
    from gateway.admit.budgets import BudgetBook
    from gateway.admit.local import LocalBuckets
    from gateway.admit.policy import LimitSet
    from gateway.domain.budget import BudgetKey
    from gateway.domain.call import Call
    from gateway.domain.config import ModelConfig
    from gateway.domain.principal import Principal
    from gateway.observe.metrics import Metrics

RETRY_AFTER_S_MAX = 60.0
ROUNDS_MAX = 3
"""How often a claim is made again after its budgets were summed up: Redis may be emptied in between."""

_APPLICABLE_MAX = 20_000

AwayPolicy = Literal["local", "deny", "allow"]


class _Limiter(Holder, Protocol):
    """Redis, or this replica's shares."""

    async def reserve(self, claim: Claim) -> Answer: ...


_NOTHING_TAKEN = Granted([])


class Admitter:
    """Holds what admission needs between requests: limits by principal and model, what was learnt of models."""

    def __init__(
        self,
        store: BucketStore,
        local: LocalBuckets,
        budgets: BudgetBook,
        prices: Prices,
        *,
        away_policy: AwayPolicy,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._budgets = budgets
        self._prices = prices
        self._fallback = Fallback(local, store.leases, budgets)
        self._away_policy: AwayPolicy = away_policy
        self._metrics = metrics
        self._fell_back = False
        """Whether limits were enforced locally for somebody to whom Redis has granted nothing since."""
        self.on_exceeded: Callable[[BudgetKey], None] = _told_nobody
        """Is told of each budget that a request is refused for, and returns at once."""
        self.learning = Learning(metrics.estimates)
        # Keyed by identity of objects that the value keeps alive through the key's own references.
        self._known: OrderedDict[tuple[int, int], tuple[Principal, ModelConfig, Applicable]] = OrderedDict()

    async def admit(self, principal: Principal, call: Call) -> Reservation:
        """Reserve what the call will probably use, at every level that limits it, and what it may cost at most.

        Raises:
            RequestExceedsLimit: the prompt is larger than a token bucket can ever hold.
            InstructionsExceedLimit: so are its tools and instructions, without any conversation.
            LimitExceeded: a limit cannot cover it now; says which and when it may.
            BudgetExceeded: a budget is spent.
            BudgetUnknown: what is left of a budget cannot be told now.
            LimiterUnavailable: Redis is away and the policy is `deny`.
        """
        limits = self._applicable(principal, call.model)
        experience = self.learning.experience(call.model.name)
        likely = self.learning.expect(principal, call)
        cost = worst_cost(call, likely, self._prices.current(call.model.name))
        most = cost.most
        try:
            expected = fitted(call, likely, limits, experience.bytes_per_token)
        except (RequestExceedsLimit, InstructionsExceedLimit):
            self._metrics.decided("too_large")
            raise
        tenant, deployment = limits.tenant, limits.deployment
        if limits.in_session is not None and call.session is not None:
            tenant = limits.in_session
        if not tenant and deployment is None:
            self._metrics.decided("unlimited")
            return Reservation(call.event_id, expected, experience, most)
        cached = expected.cached_tokens
        usage = UsageVector(1, expected.prompt_tokens - cached, cached, expected.completion_tokens)
        claim = wide = None
        if tenant.budgets:
            worst = nano_usd(most)
            least = nano_usd(cost.least) if call.stream else worst
            claim = Claim(call.event_id, tenant, usage, worst, least, call.session)
        elif tenant:
            claim = Claim(call.event_id, tenant, usage)
        if deployment is not None:
            wide = Claim(call.event_id, deployment, usage)
        holder, granted = await self._take(claim, wide)
        output_allowance = math.inf
        if claim is not None and granted.taken < claim.worst and holder is not None:
            most = pico_usd(granted.taken)
            output_allowance = cost.tokens(most)
        return Reservation(
            call.event_id,
            expected,
            experience,
            most,
            holder=holder,
            claim=claim,
            deployment=wide,
            levels=granted.levels,
            output_allowance=output_allowance,
        )

    async def run(self) -> None:
        """Renew leases and compare budgets with the ledger, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.leases.run(), name="leases")
            tasks.create_task(self._budgets.run(), name="budgets")

    async def _take(self, claim: Claim | None, wide: Claim | None) -> tuple[Holder | None, Granted]:
        """Have both claims granted, the tenant's and the model's; returns by whom, and what was taken for the first."""
        if self._store.available:
            try:
                granted = await self._claim(self._store, claim, wide)
            except LimiterUnavailable:
                pass  # the policy decides
            else:
                if self._fell_back:
                    self._fell_back = self._fallback.forget((claim, wide))
                if claim is not None:
                    self._fallback.remember(claim, granted)
                self._metrics.decided("granted")
                return self._store, granted
        if self._away_policy == "deny":
            self._metrics.decided("denied_redis_away")
            raise LimiterUnavailable("limits cannot be checked now", retry_after_s=1.0)
        if self._away_policy == "allow":
            self._metrics.decided("granted_unchecked")
            return None, _NOTHING_TAKEN
        self._fell_back = True
        granted = await self._claim(self._fallback, claim, wide)
        self._metrics.decided("granted_locally")
        return self._fallback, granted

    async def _claim(self, limiter: _Limiter, claim: Claim | None, wide: Claim | None) -> Granted:
        granted = _NOTHING_TAKEN
        if claim is not None:
            answer = await limiter.reserve(claim)
            granted = answer if isinstance(answer, Granted) else await self._insist(limiter, claim, answer)
        if wide is not None:
            try:
                answer = await limiter.reserve(wide)
                if not isinstance(answer, Granted):
                    self._refuse(wide, answer, _given_back(claim, granted.levels))
            except BaseException:
                if claim is not None:
                    limiter.settle_soon(claim, NOTHING, 0)
                raise
        return granted

    async def _insist(self, limiter: _Limiter, claim: Claim, answer: Answer) -> Granted:
        """Claim again once what was unknown of budgets is known; anything else is a refusal."""
        for _ in range(ROUNDS_MAX):
            if not isinstance(answer, Unknown):
                break
            assert claim.periods is not None, "only budgets can be unknown"
            try:
                await self._budgets.learn([claim.periods.sums[index] for index in answer.indexes])
            except BudgetUnknown:
                self._metrics.decided("budget_unknown")
                raise
            answer = await limiter.reserve(claim)
        if isinstance(answer, Granted):
            return answer
        levels = answer.levels if isinstance(answer, Refusal) else ()
        return self._refuse(claim, answer, claim.limits.headers(levels) if levels else [])

    def _applicable(self, principal: Principal, model: ModelConfig) -> Applicable:
        key = (id(principal), id(model))
        known = self._known.get(key)
        if known is not None:
            return known[2]
        limits = applicable(principal, model)
        self._known[key] = (principal, model, limits)
        if len(self._known) > _APPLICABLE_MAX:
            self._known.popitem(last=False)
        return limits

    def _refuse(self, claim: Claim, answer: Answer, headers: list[tuple[bytes, bytes]]) -> NoReturn:
        """Raise what a claim was answered; `headers` tell of the tenant's rates, whoever refuses for now."""
        limits = claim.limits
        if isinstance(answer, Exceeded):
            self._budgets.compare(claim)
            self._metrics.decided("refused_budget")
            assert claim.periods is not None, "only budgets are exceeded"
            self.on_exceeded(claim.periods.sums[answer.index - len(limits.limits) - len(limits.concurrency)])
            raise _exceeded(limits, answer.index)
        if not isinstance(answer, Refusal):
            self._metrics.decided("budget_unknown")
            raise BudgetUnknown("what is left of the budget cannot be told now", retry_after_s=1.0)
        index, buckets = answer.index, len(limits.limits)
        if index < buckets:
            decision, limit = "refused", limits.limits[index]
            said = f"limit '{limit.name}' of {limit.per_minute} is spent"
        elif index < buckets + len(limits.concurrency):
            decision, places = "refused_concurrency", limits.concurrency[index - buckets]
            said = f"limit '{places.name}' of {places.requests} is reached"
        else:
            self._budgets.compare(claim)
            decision = "refused_budget_reserved"
            said = f"what is left of the {limits.name(index)} is held by requests that run"
        self._metrics.decided(decision)
        refusal = LimitExceeded(said, retry_after_s=min(answer.wait_ms / 1000, RETRY_AFTER_S_MAX))
        refusal.headers = headers
        raise refusal


def _told_nobody(_budget: BudgetKey) -> None:
    """Do nothing."""


def _exceeded(limits: LimitSet, index: int) -> BudgetExceeded:
    said = f"the {limits.name(index)} is used up, or too little is left for as long an answer as was asked for"
    if not limits.is_of_session(index):
        return BudgetExceeded(said)
    error = BudgetExceeded(f"{said}; a new session has its own")
    error.plain = "the session budget is used up; a new session has its own"
    return error


def _given_back(claim: Claim | None, levels: list[int]) -> list[tuple[bytes, bytes]]:
    """Return what is told of the tenant's rates where the model's own limits refuse: what was taken is given back."""
    if claim is None or not levels:
        return []
    pairs = zip(claim.limits.buckets, levels, strict=True)
    return claim.limits.headers([int(level + bucket.cost(claim.usage)) for bucket, level in pairs])
