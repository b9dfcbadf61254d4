"""Where tests hand in what they measured of a promise: held against its bound, and written down where asked for.

Promises that are times are held to the letter where the promises are measured: `make guarantees`, on a machine that
does nothing else. In the suite, beside other tests, ten times as long tells that something never happens.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.guarantees.promises import PROMISES

RESULTS_VARIABLE = "PENSTOCK_TEST_GUARANTEES"
"""Names the file that figures are added to, a JSON object a line."""

BUSY = 10


def bound_of(promise_id: str) -> float:
    """Return the most that a promise may measure here, in its unit."""
    promise = PROMISES[promise_id]
    at_leisure = RESULTS_VARIABLE in os.environ
    return promise.limit * (BUSY if promise.by_the_clock and not at_leisure else 1)


def measured(promise_id: str, value: float, conditions: str = "") -> None:
    """Hand in a figure of a promise, in its unit; `conditions` says under what, such as the form and seed of a run.

    A promise may be measured many times: the worst figure counts. Raises AssertionError where the bound is exceeded.
    """
    promise = PROMISES[promise_id]
    if path := os.environ.get(RESULTS_VARIABLE):
        with Path(path).open("a", encoding="utf-8") as results:
            results.write(json.dumps({"id": promise_id, "value": value, "conditions": conditions}) + "\n")
    assert value <= bound_of(promise_id), f"{promise.promise}: {value:g} {promise.unit}, promised: {promise.bound}"
