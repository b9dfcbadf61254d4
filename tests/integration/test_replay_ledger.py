"""A replay through a gateway: the replay, the engine and the ledger tell the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.command import Penstock
from tests.support.guarantees import measured
from tests.support.ledger import all_closed
from tests.support.stack import running_stack

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.dev.servers import ServerAddresses
    from tests.support.servers import Databases

REQUESTS = 60


def test_the_ledger_tells_what_the_replay_was_told(
    databases: Databases, servers: ServerAddresses, tmp_path: Path
) -> None:
    with running_stack(databases, servers, tmp_path) as stack:
        tenant = stack.tenant()
        report = Penstock(tmp_path, {"PENSTOCK_API_KEY": tenant.key})(
            *("engine", "replay", "--base-url", stack.gateway.base_url, "--model", "sim", "--json"),
            *("--requests", str(REQUESTS), "--speed", "100000", "--sessions", "4", "--output-scale", "0.01"),
        ).document
        rows = all_closed(stack.dsn, tenant, REQUESTS)
        counted = stack.engine.counters()
    assert (report["answered"], report["errors"]) == (REQUESTS, {})
    assert {row["coverage"] for row in rows} == {"exact"}
    off = abs(sum(row["prompt_tokens"] for row in rows) - counted["prompt_tokens"])
    off += abs(sum(row["completion_tokens"] for row in rows) - counted["generated_tokens"])
    measured("ledger-tokens", off, f"{REQUESTS} requests of coding agents, {report['prompt_tokens']:,} prompt tokens")
    for name in ("prompt_tokens", "cached_tokens", "completion_tokens"):
        assert sum(row[name] for row in rows) == report[name] > 0
    assert (counted["prompt_tokens"], counted["generated_tokens"]) == (
        report["prompt_tokens"],
        report["completion_tokens"],
    )
    assert len({row["session"] for row in rows}) > 4
