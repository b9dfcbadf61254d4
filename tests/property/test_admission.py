"""Admission, whatever the limits and weights: what is reserved can be had, so no request is refused for ever by 429."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain.config import TokenWeights
from gateway.domain.principal import Limit, LimitUnit
from gateway.errors import RequestExceedsLimit
from tests.support.limits import limit, model, principal
from tests.unit.admit.scripted import call, make_desk

weights = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 1.0, 3.0]), st.floats(0, 100, allow_subnormal=False))
limits = st.lists(
    st.builds(limit, st.sampled_from(LimitUnit), st.integers(1, 10**12), burst=st.integers(1, 2_000)),
    min_size=1,
    max_size=4,
)


SMALL = [limit(LimitUnit.TOKENS, 7)]


@given(limits, st.builds(TokenWeights, weights, weights, weights), st.integers(1, 3_000), st.integers(0, 10**7))
@example(SMALL, TokenWeights(input=0.1, output=0.1), 8, 10**7)
def test_what_is_reserved_fits_into_every_bucket(
    some: list[Limit], weighing: TokenWeights, prompt_bytes: int, output_max: int
) -> None:
    """A cost above what a bucket can ever hold would be refused with a `retry-after`, over and over."""
    desk, asked = make_desk(), model(weights=weighing)
    caller = principal(*some)
    request = call(asked, body=b"x" * prompt_bytes, output_max=output_max)
    try:
        asyncio.run(desk.admitter.admit(caller, request))
    except RequestExceedsLimit:
        return
    (usage,) = desk.store.reserved
    tenant = desk.admitter._applicable(caller, asked).tenant
    assert all(bucket.cost(usage) <= bucket.capacity for bucket in tenant.buckets)
    assert usage.output_tokens >= 0
