"""`penstock ledger export`: every line exactly once over consecutive exports, exact, whole or not at all."""

from __future__ import annotations

import csv
import datetime as dt
import io
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import asyncpg
from pyarrow import parquet

from gateway.units import PicoUsd
from tests.support.billing import events_at, execute, rows, set_rates, write_events, write_late_close
from tests.support.servers import run_blocking

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.command import Outcome, Penstock

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


def lines_of(text: str) -> list[dict[str, str]]:
    """Return the lines of a CSV export."""
    return list(csv.DictReader(io.StringIO(text)))


def cursor_of(done: Outcome) -> str:
    """Return the cursor that an export to standard output ended with."""
    assert done.code == 0, done
    return done.err.split()[-1]


def test_an_export_has_every_event_and_adjustment_exactly(penstock: Penstock, postgres_dsn: str) -> None:
    (plain,) = events_at(NOW - HOUR, cost_pico_usd=PicoUsd(10**30 + 1))
    (reaped,) = events_at(NOW - 2 * HOUR, cost_pico_usd=PicoUsd(5), user_id=None, engine=None, status="interrupted")
    write_events(postgres_dsn, [plain])
    write_events(postgres_dsn, [reaped], reaped=True)
    write_late_close(postgres_dsn, reaped, tokens=(-3, 0, 4, 0), cost=-2)
    done = penstock("ledger", "export", "--since", "24h")
    found = {line["line_id"]: line for line in lines_of(done.out)}
    late = f"{reaped.event_id}:00000000-0000-0000-0000-000000000000"
    assert list(found) == [str(plain.event_id), str(reaped.event_id), late], "in the order of their ingestion"
    first = found[str(plain.event_id)]
    assert (first["kind"], first["cost_usd"], first["engine"]) == (
        "event",
        "1000000000000000000.000000000001",
        "http://engine",
    )
    assert dt.datetime.fromisoformat(first["opened_at"]) == plain.opened_at
    assert first["opened_at"].endswith("Z")
    assert (first["organization_id"], first["prompt_tokens"], first["price_id"]) == (
        str(plain.organization_id),
        "90",
        "1",
    )
    assert (found[str(reaped.event_id)]["user_id"], found[late]["kind"]) == ("", "late_close")
    assert (found[late]["prompt_tokens"], found[late]["completion_tokens"]) == ("-3", "4")
    assert Decimal(found[late]["cost_usd"]) == Decimal("-0.000000000002")


def test_exports_one_after_the_other_have_each_line_once(penstock: Penstock, postgres_dsn: str) -> None:
    """Also those of a transaction that was open meanwhile, and of one that began early and wrote late."""
    early, slow, late = (events_at(NOW - HOUR)[0] for _ in range(3))
    copy = "INSERT INTO usage_event SELECT * FROM moved"
    write_events(postgres_dsn, [early, slow])
    execute(postgres_dsn, "CREATE TABLE moved AS SELECT * FROM usage_event WHERE event_id = $1", slow.event_id)
    execute(postgres_dsn, "DELETE FROM usage_event WHERE event_id = $1", slow.event_id)

    async def exports() -> list[str]:
        connection = await asyncpg.connect(postgres_dsn)
        try:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE moved SET ingest_xid = pg_current_xact_id()")
            outcomes = [penstock("ledger", "export", "--since", "24h")]
            await connection.execute(copy)
            write_events(postgres_dsn, [late])
            outcomes.append(penstock("ledger", "export", "--after", cursor_of(outcomes[-1])))
            await transaction.commit()
        finally:
            await connection.close()
        for _ in range(2):
            outcomes.append(penstock("ledger", "export", "--after", cursor_of(outcomes[-1])))
        return [line["event_id"] for outcome in outcomes for line in lines_of(outcome.out)]

    found = run_blocking(exports())
    assert sorted(found) == sorted(str(each.event_id) for each in (early, slow, late))


def test_a_correction_is_a_new_line_and_nothing_that_was_billed_comes_again(
    penstock: Penstock, postgres_dsn: str, tmp_path: Path
) -> None:
    events = events_at(*(NOW - HOUR for _ in range(3)), cost_pico_usd=PicoUsd(0))
    write_events(postgres_dsn, events)
    file = tmp_path / "bill.csv"
    first = penstock("ledger", "export", "--since", "24h", "--output", str(file), "--json").document
    assert (first["lines"], first["output"]) == (3, str(file))
    billed = {line["line_id"]: line for line in lines_of(file.read_text())}
    set_rates(postgres_dsn, "served", NOW - 24 * HOUR, 1, 1, 1, 1, 1)
    assert penstock("ledger", "rerate", "--since", "24h").code == 0
    said = penstock("ledger", "export", "--after", first["next_after"], "--output", str(file)).out
    assert said.startswith(f"3 lines in {file}; go on with --after ")
    corrections = {line["line_id"]: line for line in lines_of(file.read_text())}
    assert {line["kind"] for line in corrections.values()} == {"rerate"}
    assert not billed.keys() & corrections.keys()
    whole = {line["line_id"]: line for line in lines_of(penstock("ledger", "export", "--since", "24h").out)}
    assert whole == billed | corrections, "the same lines, to the last digit"
    total = sum(Decimal(line["cost_usd"]) for line in whole.values())
    assert total == 3 * Decimal(90 + 7 + 1) / 10**12


def test_parquet_has_exact_types(penstock: Penstock, postgres_dsn: str, tmp_path: Path) -> None:
    amounts = [PicoUsd(10**38 - 1), PicoUsd(1), PicoUsd(10**14)]
    organization = uuid4()
    events = [events_at(NOW - HOUR, cost_pico_usd=amount, organization_id=organization)[0] for amount in amounts]
    write_events(postgres_dsn, events)
    file = tmp_path / "bill.parquet"
    options = ("--format", "parquet", "--since", "24h", "--output", str(file))
    assert penstock("ledger", "export", *options, "--json").document["lines"] == 3
    table = parquet.read_table(file)
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 12)"
    assert str(table.schema.field("opened_at").type) == "timestamp[us, tz=UTC]"
    found: dict[str, dict[str, Any]] = {line["line_id"]: line for line in table.to_pylist()}
    for event in events:
        line = found[str(event.event_id)]
        assert Fraction(line["cost_usd"]) * 10**12 == event.cost_pico_usd
        assert (line["opened_at"], line["prompt_tokens"]) == (event.opened_at, 90)
        assert line["organization_id"] == str(organization)
    execute(postgres_dsn, "TRUNCATE usage_event")
    assert penstock("ledger", "export", *options).code == 0
    assert parquet.read_table(file).num_rows == 0


def test_a_file_is_there_whole_or_not_at_all(penstock: Penstock, postgres_dsn: str, tmp_path: Path) -> None:
    write_events(postgres_dsn, events_at(NOW - HOUR))
    folder = tmp_path / "out"
    folder.mkdir()
    file = folder / "bill.csv"
    file.write_text("of before")
    execute(postgres_dsn, "ALTER TABLE usage_adjustment RENAME TO away")
    done = penstock("ledger", "export", "--since", "24h", "--output", str(file))
    assert (done.code, done.out) == (1, "")
    assert "the database has no tables of this release" in done.err
    assert [each.name for each in folder.iterdir()] == ["bill.csv"]
    assert file.read_text() == "of before"


def test_mistakes_are_told_in_one_line(penstock: Penstock, postgres_dsn: str, tmp_path: Path) -> None:
    end = rows(postgres_dsn, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS xmin")[0]["xmin"]
    for arguments, code, message in (
        ((), 2, "say from when on: --since, or --after"),
        (("--since", "24h", "--format", "parquet"), 2, "give --output FILE"),
        (("--after", "x1"), 2, "after must be the cursor that an export ended with"),
        (("--after", str(int(end) + 10**6)), 2, "after is a cursor of another server"),
        (("--since", "24h", "--output", str(tmp_path / "no" / "such.csv")), 1, "No such file or directory"),
    ):
        done = penstock("ledger", "export", *arguments)
        assert (done.code, done.out) == (code, "")
        assert message in done.err
        assert done.err.count("\n") == 1
