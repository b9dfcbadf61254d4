"""What errors of Postgres are told as."""

from __future__ import annotations

import asyncpg
import pytest

from gateway.admin.database import translated
from gateway.errors import InvalidRequest, StorageUnavailable


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (asyncpg.DeadlockDetectedError, "others change the same things"),
        (asyncpg.LockNotAvailableError, "others change the same things"),
        (asyncpg.AdminShutdownError, "Postgres does not answer"),
    ],
)
async def test_what_passes_is_told_with_when_to_try_again(error: type[Exception], said: str) -> None:
    with pytest.raises(StorageUnavailable, match=said) as told:
        async with translated():
            raise error("of Postgres")
    assert told.value.retry_after_s is not None


async def test_what_no_text_can_hold_is_a_fault_of_the_request() -> None:
    with pytest.raises(InvalidRequest, match="NUL"):
        async with translated():
            raise asyncpg.CharacterNotInRepertoireError("invalid byte sequence")
