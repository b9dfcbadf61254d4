"""`penstock usage`: what the ledger says was used, by tenant or model."""

import datetime as dt
from typing import Annotated

import typer

from gateway.admin.scope import PLATFORM
from gateway.admin.usage import Grouping, Period, usage_report
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn
from gateway.cli.output import emit_json, emit_line, emit_table, shown


def usage(
    *,
    by: Annotated[Grouping, typer.Option("--by", help="What to have a row for each of.")] = Grouping.ORG,
    org: Organization = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="2026-08-01, 2026-08-01T12:00Z (UTC), 24h or 7d. Default: 24h."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Up to, not including; like --since. Default: now.")
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Report requests, tokens and exact cost of the last 24 hours, or of the time given.

    Prompt tokens include cached ones. `estimated` counts the requests whose engine never told their tokens.
    """
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    rows = control(postgres_dsn).run(lambda db: usage_report(db, PLATFORM, by, period, organization=org))
    if as_json:
        emit_json(rows)
        return
    columns = {
        str(by): "name",
        "id": "id",
        "requests": "requests",
        "prompt tokens": "prompt_tokens",
        "cached tokens": "cached_tokens",
        "completion tokens": "completion_tokens",
        "cost USD": "cost_usd",
        "estimated": "estimated",
    }
    if by is Grouping.MODEL:
        del columns["id"]
    emit_table(columns, rows, empty="nothing was used in this time")
    emit_line(f"from {shown(period.since)} until {shown(period.until)}")
