"""Admission: one principal, one call, one question to Redis, and a reservation that cannot be dropped unaccounted.

While Redis is away the deployment's policy decides: enforce this replica's share locally, refuse, or enforce nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Literal, NoReturn

from gateway.admit.bucket import Refusal, UsageVector
from gateway.admit.estimate import NOTHING_EXPECTED, Estimate, Experience, estimate
from gateway.admit.instructions import instruction_tokens
from gateway.admit.policy import BucketSet, bucket_set
from gateway.admit.reservation import Reservation
from gateway.domain.call import Endpoint
from gateway.errors import InstructionsExceedLimit, LimiterUnavailable, LimitExceeded, RequestExceedsLimit

if TYPE_CHECKING:
    from gateway.admit.bucket_store import BucketStore
    from gateway.admit.local import LocalBuckets
    from gateway.domain.call import Call
    from gateway.domain.config import ModelConfig
    from gateway.domain.principal import Principal
    from gateway.observe.metrics import Metrics

RETRY_AFTER_S_MAX = 60.0
_BUCKET_SETS_MAX = 20_000

AwayPolicy = Literal["local", "deny", "allow"]


class Admitter:
    """Holds what admission needs between requests: bucket sets by principal and model, experience by model."""

    def __init__(self, store: BucketStore, local: LocalBuckets, *, away_policy: AwayPolicy, metrics: Metrics) -> None:
        self._store = store
        self._local = local
        self._away_policy: AwayPolicy = away_policy
        self._metrics = metrics
        self._fell_back = False
        """Whether limits were enforced locally since Redis last granted something."""
        self._experience: dict[str, Experience] = {}
        # Keyed by identity of objects that the value keeps alive through the key's own references.
        self._bucket_sets: OrderedDict[tuple[int, int], tuple[Principal, ModelConfig, BucketSet]] = OrderedDict()

    async def admit(self, principal: Principal, call: Call) -> Reservation:
        """Reserve what the call will probably use, at every level that limits it.

        Raises:
            RequestExceedsLimit: the prompt is larger than a token bucket can ever hold.
            InstructionsExceedLimit: so are its tools and instructions, without any conversation.
            LimitExceeded: a bucket cannot cover it now; says which and when it will.
            LimiterUnavailable: Redis is away and the policy is `deny`.
        """
        buckets = self._buckets(principal, call.model)
        experience = self.experience(call.model.name)
        expected = self._estimate(call, experience, buckets)
        usage = UsageVector(1, expected.prompt_tokens, 0, expected.completion_tokens)
        if not buckets.keys:
            self._metrics.decided("unlimited")
            return Reservation(call.event_id, buckets, expected, usage, [], None, experience)
        if self._store.available:
            try:
                answer = await self._store.reserve(call.event_id.hex, buckets, usage)
            except LimiterUnavailable:
                return self._admit_without_redis(call, buckets, expected, usage, experience)
            if isinstance(answer, Refusal):
                self._refuse(buckets, answer)
            if self._fell_back:
                self._fell_back = False
                self._local.forget()
            self._local.remember(buckets.keys, answer.levels)
            self._metrics.decided("granted")
            return Reservation(call.event_id, buckets, expected, usage, answer.levels, self._store, experience)
        return self._admit_without_redis(call, buckets, expected, usage, experience)

    def experience(self, model: str) -> Experience:
        """Return what is known of a model (names are those of penstock.yaml, so they are bounded)."""
        experience = self._experience.get(model)
        if experience is None:
            experience = self._experience[model] = Experience()
        return experience

    def _admit_without_redis(
        self, call: Call, buckets: BucketSet, expected: Estimate, usage: UsageVector, experience: Experience
    ) -> Reservation:
        if self._away_policy == "deny":
            self._metrics.decided("denied_redis_away")
            raise LimiterUnavailable("limits cannot be checked now", retry_after_s=1.0)
        if self._away_policy == "allow":
            self._metrics.decided("granted_unchecked")
            return Reservation(call.event_id, buckets, expected, usage, [], None, experience)
        self._fell_back = True
        answer = self._local.reserve(buckets, usage)
        if isinstance(answer, Refusal):
            self._refuse(buckets, answer)
        self._metrics.decided("granted_locally")
        levels = [int(level) for level in answer]
        return Reservation(call.event_id, buckets, expected, usage, levels, self._local, experience)

    def _estimate(self, call: Call, experience: Experience, buckets: BucketSet) -> Estimate:
        if call.endpoint is Endpoint.COUNT_TOKENS:
            return NOTHING_EXPECTED
        expected = estimate(
            len(call.body),
            experience,
            output_max=call.output_max,
            choices=call.choices,
            embeds=not call.endpoint.generates,
            media=call.media,
        )
        capacity = buckets.tightest_token_capacity
        if capacity is None:
            return expected
        weights = call.model.weights
        prompt_cost = expected.prompt_tokens * weights.input
        if prompt_cost > capacity:
            self._metrics.decided("too_large")
            fixed_tokens = instruction_tokens(call.fields, experience.bytes_per_token)
            if fixed_tokens * weights.input > capacity:
                raise InstructionsExceedLimit(
                    f"the tools and instructions alone (about {fixed_tokens} tokens) are larger than the token limit "
                    f"of {capacity:.0f} can ever hold; use fewer tools, or have the limit raised"
                )
            raise RequestExceedsLimit(
                f"the prompt (about {expected.prompt_tokens} tokens) is larger than the token limit of "
                f"{capacity:.0f} can ever hold; shorten it",
                param=call.endpoint.prompt_field,
            )
        # What a completion might need is a guess: it is cut to what the bucket can hold, so a small limit still serves.
        room = capacity - prompt_cost
        if expected.completion_tokens * weights.output <= room:
            return expected
        completion_tokens = int(room / weights.output)
        if prompt_cost + completion_tokens * weights.output > capacity:  # by a rounding, and then for ever
            completion_tokens -= 1
        return expected._replace(completion_tokens=completion_tokens)

    def _buckets(self, principal: Principal, model: ModelConfig) -> BucketSet:
        key = (id(principal), id(model))
        known = self._bucket_sets.get(key)
        if known is not None:
            return known[2]
        buckets = bucket_set(principal, model)
        self._bucket_sets[key] = (principal, model, buckets)
        if len(self._bucket_sets) > _BUCKET_SETS_MAX:
            self._bucket_sets.popitem(last=False)
        return buckets

    def _refuse(self, buckets: BucketSet, refusal: Refusal) -> NoReturn:
        limit = buckets.limits[refusal.index]
        self._metrics.decided("refused")
        raise LimitExceeded(
            f"limit '{limit.name}' of {limit.per_minute} is spent",
            retry_after_s=min(refusal.wait_ms / 1000, RETRY_AFTER_S_MAX),
        )
