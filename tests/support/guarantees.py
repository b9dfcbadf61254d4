"""Where tests hand in what they measured of a promise: held against its bound, and written down where asked for.

Timing promises are the one case in which a test may look at a clock: what is promised is a time.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.guarantees.promises import PROMISES

RESULTS_VARIABLE = "PENSTOCK_TEST_GUARANTEES"
"""Names the file that figures are added to, a JSON object a line."""


def measured(promise_id: str, value: float, conditions: str = "") -> None:
    """Hand in a figure of a promise, in its unit; `conditions` says under what, such as the form and seed of a run.

    A promise may be measured many times: the worst figure counts. Raises AssertionError where the bound is exceeded.
    """
    promise = PROMISES[promise_id]
    if path := os.environ.get(RESULTS_VARIABLE):
        with Path(path).open("a", encoding="utf-8") as results:
            results.write(json.dumps({"id": promise_id, "value": value, "conditions": conditions}) + "\n")
    assert value <= promise.limit, f"{promise.promise}: {value:g} {promise.unit}, promised: {promise.bound}"
