"""`penstock usage`: what the ledger says was used, by any of tenant, model, engine, session and time."""

import datetime as dt
import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.admin.ledger_files import whole_file
from gateway.admin.scope import PLATFORM
from gateway.admin.usage import Asked, Period, Report, groupings, usage_report
from gateway.admin.usage_files import ReportFormat, as_file
from gateway.admin.usage_filters import Filters
from gateway.admin.usage_sql import Bucket, Grouping, Order
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn
from gateway.cli.output import emit_line, emit_table, shown
from gateway.errors import InvalidRequest

_SUMS = {
    "requests": "requests",
    "prompt tokens": "prompt_tokens",
    "cached tokens": "cached_tokens",
    "completion tokens": "completion_tokens",
    "cost USD": "cost_usd",
    "estimated": "estimated",
}


def usage(
    *,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="THINGS",
            help=f"What to have a row for each of, with commas: {', '.join(Grouping)}."
            " Default: org; nothing with --bucket.",
        ),
    ] = None,
    bucket: Annotated[
        Bucket | None,
        typer.Option("--bucket", help="Also a row for each such time, in UTC, in which something was used."),
    ] = None,
    org: Organization = None,
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Only this team's.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Only this user's.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only this key's.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only what this model served.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", metavar="ENGINE", help="Only what this engine did.")] = None,
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only this session's.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="2026-08-01, 2026-08-01T12:00Z (UTC), 24h or 7d. Default: 24h."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="WHEN", help="Up to, not including; like --since. Default: now.")
    ] = None,
    order: Annotated[
        Order | None,
        typer.Option("--order", help="By id and time, or the most first. Default: cost; id with --bucket."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="The first N rows. Default: all.")
    ] = None,
    form: Annotated[
        ReportFormat | None, typer.Option("--format", help="Write the report as a file instead of a table.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Where a file goes; - is standard output.")
    ] = "-",
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Report requests, tokens and exact cost of the last 24 hours, or of the time given.

    Prompt tokens include cached ones. `estimated` counts the requests whose engine never told their tokens.
    """
    form = ReportFormat.JSON if as_json and form is None else form
    if form is None and output != "-":
        raise InvalidRequest("--output needs --format: json, csv or parquet")
    if form is ReportFormat.PARQUET and output == "-":
        raise InvalidRequest("Parquet is no text: give --output FILE")
    asked = Asked(
        Period.parse(since, until, dt.datetime.now(dt.UTC)),
        groupings(by if by is not None else "" if bucket else Grouping.ORG),
        bucket,
        Filters(team, user, key, model, engine, session),
        order or (Order.ID if bucket else Order.COST),
        limit,
    )
    report = control(postgres_dsn).run(lambda db: usage_report(db, PLATFORM, asked, organization=org))
    if form is None:
        _show(asked, report)
        return
    _write(asked, report, form, output)
    if report.more:
        typer.echo(f"note: there are more than these {limit} rows", err=True)


def _write(asked: Asked, report: Report, form: ReportFormat, output: str) -> None:
    """Write the rows to standard output, or to a file that is there whole or not at all."""
    if form is ReportFormat.JSON:
        body = msgspec.json.format(msgspec.json.encode(report.rows), indent=2) + b"\n"
    else:
        body = as_file(asked, report.rows, form)
    if output == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(output)) as file:
        file.write(body)


def _show(asked: Asked, report: Report) -> None:
    single = len(asked.by) == 1
    columns = {"time": "bucket"} if asked.bucket else {}
    for by in asked.by:
        columns[str(by)] = by.field
        if single and by.id_field:
            columns["id"] = by.id_field
    rows = [_Shown(row.group | {name: getattr(row, name) for name in _SUMS.values()}) for row in report.rows]
    emit_table(columns | _SUMS, rows, empty="nothing was used in this time")
    more = "; there are more rows" if report.more else ""
    period = asked.period
    emit_line(f"from {shown(period.since)} until {shown(period.until)}, as of {report.as_of:%H:%M:%S}Z{more}")


class _Shown:
    """A row whose columns depend on what was asked."""

    def __init__(self, cells: dict[str, str | int | None]) -> None:
        self.__dict__.update(cells)
