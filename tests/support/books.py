"""What one request leaves behind: its records in the ledger, the tenant's buckets, and nothing in flight anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.support.ledger import both_events
from tests.support.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.support.engine import EngineProcess
    from tests.support.stack import Stack

BURST = 1_000_000


class Books:
    """The accounts of one tenant of a stack, whose buckets are refilled too slowly to notice.

    Call `begin` before a request and `closed` after it.
    """

    def __init__(self, stack: Stack, engines: Sequence[EngineProcess]) -> None:
        limits = {"requests_per_minute": 1, "requests_burst": BURST, "tokens_per_minute": 1, "tokens_burst": BURST}
        self.tenant = stack.tenant(**limits)
        self._stack = stack
        self._engines = engines
        self._known: set[object] = set()
        self._levels = {"requests": float(BURST), "tokens": float(BURST)}

    def begin(self) -> None:
        """Remember how things stand."""
        self._known = {event for event, _ in both_events(self._stack.dsn, self.tenant)}
        self._levels |= self._levels_now()

    def closed(self) -> dict[str, Any]:
        """Wait until the one request since `begin` is settled, and return its row of `usage_event`.

        Asserts that it was opened and closed once, that the buckets have lost what the row says and nothing is
        reserved any more, and that no engine and no replica has a request in flight.
        """
        (row,) = wait_for(self._new_rows, "the request is opened and closed")
        for engine in self._engines:
            now = engine.wait_for(lambda now: now["received"] == now["finished"] + now["failed"] + now["aborted"])
            assert (now["running"], now["waiting"], now["kv_tokens"]) == (0, 0, 0)
        wait_for(lambda: self._in_flight() == 0, "no request is in flight")
        wait_for(lambda: self._reserved() == [], "nothing is reserved")
        before, after = self._levels, self._levels_now()
        assert before["requests"] - after["requests"] == pytest.approx(1, abs=0.5)
        used = row["prompt_tokens"] + row["completion_tokens"]
        assert before["tokens"] - after["tokens"] == pytest.approx(used, abs=0.5)
        return row

    def _new_rows(self) -> list[dict[str, Any]]:
        """Return the rows of what was opened since `begin`, one at most, that are closed."""
        new = [row for event, row in both_events(self._stack.dsn, self.tenant) if event not in self._known]
        assert len(new) <= 1
        return [row for row in new if row is not None]

    def _in_flight(self) -> float:
        """Return the requests that are being served, or are on an engine, in all replicas."""
        pages = [gateway.metrics() for gateway in self._stack.gateways]
        return sum(page["penstock_requests_in_flight"] + page["penstock_engine_requests_in_flight"] for page in pages)

    def _reserved(self) -> list[str]:
        with redis.Redis.from_url(self._stack.redis_url, decode_responses=True) as store:
            return [str(key) for key in store.scan_iter(f"pst:{{{self.tenant.organization_id.hex}}}:r:*")]

    def _levels_now(self) -> dict[str, float]:
        """Return the levels of the key's buckets that have been touched, by unit."""
        with redis.Redis.from_url(self._stack.redis_url, decode_responses=True) as store:
            keys = [str(key) for key in store.scan_iter(f"pst:{{{self.tenant.organization_id.hex}}}:b:*")]
            return {key.split(":")[-2]: float(str(store.get(key)).split()[0]) for key in keys}
