"""What is said of a Postgres that accepts connections and then says nothing."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from gateway.errors import StorageUnavailable
from gateway.storage import postgres


async def test_a_postgres_that_stays_silent_is_told_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CONNECT_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, capture_logs() as said:
        dsn = f"postgresql://penstock@127.0.0.1:{silent.getsockname()[1]}/penstock"
        with pytest.raises(StorageUnavailable, match="does not answer: no answer in time"):
            await postgres.open_pool(dsn, pooled=False, wait_s=0.1)
    assert [line["reason"] for line in said if line["event"] == "postgres_away"] == ["no answer in time"]
