"""`python -m bench reports`: how long usage reports take over a ledger of a million events, or of more."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from rich.table import Table

from bench.servers import running_stack
from bench.usage_events import fill
from gateway.admin.scope import PLATFORM
from gateway.admin.usage import Asked, Period, usage_report
from gateway.admin.usage_filters import Filters
from gateway.admin.usage_sql import Bucket, Grouping, Order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bench.usage_events import Filled

REPORTS = "reports"
EVENTS = 1_000_000
EVENTS_MAX = 50_000_000
TARGET_MS = 200.0
RUNS = 7
WARM_UP = 2


def report_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of a measurement of reports."""
    parser = argparse.ArgumentParser(prog=f"python -m bench {REPORTS}", description="Measure usage reports.")
    parser.add_argument("--events", type=int, default=EVENTS, help=f"events in the ledger (default: {EVENTS:,})")
    parser.add_argument("--postgres-dsn", help="use this server (a database is made and dropped) and start none")
    parser.add_argument("--redis-url", help="use this server and start none")
    options = parser.parse_args(arguments)
    if not 1000 <= options.events <= EVENTS_MAX:
        parser.error(f"--events must be 1,000 to {EVENTS_MAX:,}")
    return options


def measure_reports(console: Console, options: argparse.Namespace) -> int:
    """Fill a database, take the time of each report, print them; return 1 when one takes longer than it may.

    The target holds up to a million events: of more, the figures are told.
    """
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder,
        running_stack(Path(folder), options.postgres_dsn, options.redis_url) as stack,
    ):
        return asyncio.run(_measure(console, stack.postgres_dsn, options.events))


async def _measure(console: Console, dsn: str, events: int) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        console.print(f"writing {events:,} events and rolling them up", highlight=False)
        began_s = time.perf_counter()
        filled = await fill(connection, events)
        sizes = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM usage_day) AS days, (SELECT count(*) FROM usage_hour) AS hours,"
            " (SELECT count(*) FROM usage_session) AS sessions"
        )
        assert sizes is not None, "a statement without FROM has a row"
        console.print(
            f"{filled.events:,} events in {time.perf_counter() - began_s:.0f} s; rows of the rollups: "
            + ", ".join(f"{name} {count:,}" for name, count in sizes.items()),
            highlight=False,
        )
        table = Table("report", "rows", "median ms", "slowest ms", box=None)
        slowest_ms = 0.0
        for name, asked in questions(filled).items():
            rows, times_ms = await _times(connection, asked)
            slowest_ms = max(slowest_ms, statistics.median(times_ms))
            table.add_row(name, f"{rows:,}", f"{statistics.median(times_ms):.1f}", f"{max(times_ms):.1f}")
        console.print(table)
    finally:
        await connection.close()
    if filled.events <= EVENTS * 1.1 and slowest_ms > TARGET_MS:
        console.print(f"[bold red]failed[/] a report may take {TARGET_MS:.0f} ms", highlight=False)
        return 1
    return 0


def questions(filled: Filled) -> dict[str, Asked]:
    """Return the reports that are measured, by name."""
    all_of_it, last_day = Period(filled.since, filled.until), Period(filled.until - dt.timedelta(days=1), filled.until)
    one = Filters(session=filled.session)
    return {
        "organizations": Asked(all_of_it),
        "teams and models by day": Asked(all_of_it, (Grouping.TEAM, Grouping.MODEL), Bucket.DAY, limit=1000),
        "users and models": Asked(all_of_it, (Grouping.USER, Grouping.MODEL), limit=1000),
        "keys by week": Asked(all_of_it, (Grouping.KEY,), Bucket.WEEK, order=Order.ID, limit=1000),
        "engines by month": Asked(all_of_it, (Grouping.ENGINE,), Bucket.MONTH),
        "every hour": Asked(all_of_it, (), Bucket.HOUR, order=Order.ID),
        "the 100 dearest sessions": Asked(all_of_it, (Grouping.SESSION,), limit=100),
        "one session by hour": Asked(all_of_it, (Grouping.SESSION, Grouping.MODEL), Bucket.HOUR, one),
        "teams, the last 24 hours": Asked(last_day, (Grouping.TEAM,)),
        "sessions and engines, the last 24 hours": Asked(last_day, (Grouping.SESSION, Grouping.ENGINE), limit=1000),
    }


async def _times(connection: asyncpg.Connection[asyncpg.Record], asked: Asked) -> tuple[int, list[float]]:
    """Return how many rows a report has, and how many milliseconds it took each time, names and conversion included."""
    times_ms = []
    for number in range(WARM_UP + RUNS):
        async with connection.transaction(readonly=True):
            began_s = time.perf_counter()
            report = await usage_report(connection, PLATFORM, asked)
            if number >= WARM_UP:
                times_ms.append((time.perf_counter() - began_s) * 1000)
    return len(report.rows), times_ms
