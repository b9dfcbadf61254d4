"""Fixtures of the tests that run the `penstock` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from tests.support.command import Penstock
from tests.support.post_office import PostOffice
from tests.support.webhooks import Receiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PEPPER = "1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.fixture
def penstock(postgres_dsn: str, tmp_path: Path) -> Penstock:
    """The command, on a fresh database that the environment names."""
    return Penstock(tmp_path, {"PENSTOCK_POSTGRES_DSN": postgres_dsn, "PENSTOCK_KEY_PEPPERS": PEPPER})


@pytest.fixture
def nowhere(tmp_path: Path) -> Penstock:
    """The command, with no database configured."""
    return Penstock(tmp_path, {})


@pytest.fixture
async def office(postgres_dsn: str) -> AsyncIterator[PostOffice]:
    """A courier on a fresh database."""
    async with asyncpg.create_pool(postgres_dsn, min_size=1, max_size=4) as pool:
        yield PostOffice(postgres_dsn, pool)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with Receiver() as running:
        yield running
