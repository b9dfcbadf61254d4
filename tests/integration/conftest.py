"""Fixtures of the tests that run the `penstock` command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command import Penstock

if TYPE_CHECKING:
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
