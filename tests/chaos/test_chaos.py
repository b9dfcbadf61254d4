"""The short form of `make chaos`, as continuous integration runs it: always the same seed, so that it is repeatable."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.chaos.__main__ import SEED
from tests.chaos.plan import CI
from tests.chaos.run import run

if TYPE_CHECKING:
    from collections.abc import Callable

RUN_S_MAX = 900.0
"""Beyond what a run's own bounds add up to: about four minutes are usual."""


@pytest.mark.timeout(RUN_S_MAX)
def test_the_books_agree_after_everything_failed() -> None:
    say: Callable[[str], None] = logging.getLogger("chaos").warning
    verdict = run(SEED, CI, say, "ci")
    assert not verdict.findings, str(verdict)
    assert verdict.figures["kills"] >= 20
