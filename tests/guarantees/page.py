"""docs/guarantees.md, written from results alone: the page holds them with their digest, so it can be written again.

A figure that somebody typed shows: the page is then not what its results render to, or their digest is another one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.guarantees.promises import PROMISES
from tests.support.source import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = REPOSITORY / "docs" / "guarantees.md"
HEAD = """# Guarantees

What Penstock promises, how each promise is measured, and the figure of the last measurement. All of them are
measured again by `make guarantees`, which writes this page; in its long form, which takes over an hour:

    make guarantees ARGS='--chaos="--minutes 30 --kills 200" --soak="--minutes 30"'

A house test holds the page against its own results, against the bounds, and against the tests that it names.
Where several measurements were made, the worst one is shown.

**Chaos.** The figures of `tests/chaos` come from one run in which replicas are killed by `kill -9` and started
again, Redis is wiped, killed, paused and cut off, Postgres is stopped, paused and cut off, and engines are cut
off, while clients of many tenants stream, hang up and call tools. A seed decides what happens when, so that a
run can be had again: `make chaos ARGS="--minutes 30 --kills 200 --seed 1"`; without ARGS it is the short form
that continuous integration runs. Afterwards every request that a client sent is held against the ledger, the
engines' own records and what is left in Redis and the spools. A run that finds something leaves logs, plan and
rows in a folder, and says where.

**Soak.** Steady load on two replicas, and nothing may grow: `make soak ARGS="--minutes 30"`.

"""
RESULTS = re.compile(r"<!-- results (?P<json>\{.*\}) sha256:(?P<digest>[0-9a-f]{64}) -->")
DIGITS = 3


@dataclass(frozen=True)
class Result:
    """What was measured of one promise, in its unit, and under what."""

    value: float
    conditions: str


def worst(lines: Iterable[str]) -> dict[str, Result]:
    """Return the worst of the figures that tests handed in, by promise; `lines` are of the results file."""
    found: dict[str, Result] = {}
    for line in lines:
        read = json.loads(line)
        result = Result(float(f"{read['value']:.{DIGITS}g}"), read["conditions"])
        if read["id"] not in found or result.value > found[read["id"]].value:
            found[read["id"]] = result
    return found


def rendered(results: dict[str, Result], machine: str) -> str:
    """Return the page. `machine` says on what was measured. Raises KeyError where a promise was not measured."""
    rows = ["| promise | bound | measured | test | under |", "| --- | --- | --- | --- | --- |"]
    for promise in PROMISES.values():
        result = results[promise.id]
        figure = f"{result.value:.{DIGITS}g} {promise.unit}"
        under = result.conditions or "-"
        rows.append(f"| {promise.promise} | {promise.bound} | {figure} | `{promise.test}` | {under} |")
    kept = json.dumps(
        {"machine": machine, "results": {name: asdict(results[name]) for name in PROMISES}}, sort_keys=True
    )
    digest = hashlib.sha256(kept.encode()).hexdigest()
    table = "\n".join(rows)
    return f"{HEAD}{table}\n\nMeasured on {machine}.\n\n<!-- results {kept} sha256:{digest} -->\n"


def results_of(page: str) -> tuple[dict[str, Result], str]:
    """Return the results and the machine that a page holds. Raises ValueError where they were changed."""
    found = RESULTS.search(page)
    if found is None:
        raise ValueError("the page holds no results: run `make guarantees`")
    if hashlib.sha256(found["json"].encode()).hexdigest() != found["digest"]:
        raise ValueError("the page's results were changed by hand: run `make guarantees`")
    kept = json.loads(found["json"])
    return {name: Result(**result) for name, result in kept["results"].items()}, kept["machine"]
