"""The short form of `make soak`, and that its verdict can be a bad one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.chaos.soak import SHORT_S, Sample, growth_of, soak

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_S_MAX = 300.0
MIB = 2**20


@pytest.mark.timeout(RUN_S_MAX)
def test_nothing_grows_under_steady_load() -> None:
    say: Callable[[str], None] = logging.getLogger("soak").warning
    soak(SHORT_S, 1, say, "soak-ci")


def samples(memory: float = 0.0, descriptors: float = 0.0, tasks: float = 0.0) -> list[Sample]:
    """Return samples that grow by so much each; descriptors and tasks come and go beside that."""
    return [
        Sample(
            number,
            int(100 * MIB + memory * number * MIB),
            int(40 + number % 7 + descriptors * number),
            int(20 + number % 5 + tasks * number),
            0.001,
        )
        for number in range(90)
    ]


def test_what_comes_and_goes_is_no_growth() -> None:
    growth = growth_of([samples(), samples()])
    assert (growth.memory_percent, growth.descriptors, growth.tasks) == (0, 0, 0)


def test_growth_in_any_replica_is_found() -> None:
    assert growth_of([samples(), samples(memory=0.2)]).memory_percent > 10
    assert growth_of([samples(descriptors=0.1), samples()]).descriptors > 4
    assert growth_of([samples(), samples(tasks=0.1)]).tasks > 4
