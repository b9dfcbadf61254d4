"""`penstock usage`: what the ledger says was used, by any of tenant, model, engine, session and time."""

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from gateway.admin.usage_sql import Bucket, Grouping, Order, ReportFormat
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization
from gateway.cli.output import emit_json, emit_line, emit_table, shown
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

_SUMS = {
    "requests": "requests",
    "prompt tokens": "prompt_tokens",
    "cached tokens": "cached_tokens",
    "completion tokens": "completion_tokens",
    "cost USD": "cost_usd",
    "estimated": "estimated",
}


@on_gateway
def usage(
    api: "Api",
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
) -> None:
    """Report requests, tokens and exact cost of the last 24 hours, or of the time given.

    Prompt tokens include cached ones. `estimated` counts the requests whose engine never told their tokens.
    """
    form = ReportFormat.JSON if as_json and form is None else form
    if form is None and output != "-":
        raise InvalidRequest("--output needs --format: json, csv or parquet")
    if form is ReportFormat.PARQUET and output == "-":
        raise InvalidRequest("Parquet is no text: give --output FILE")
    asked: dict[str, object] = {
        "by": by,
        "bucket": _text(bucket),
        "organization": org,
        "team": team,
        "user": user,
        "key": key,
        "model": model,
        "engine": engine,
        "session": session,
        "since": since,
        "until": until,
        "order": _text(order or (Order.ID if bucket else Order.COST)),
        "limit": limit,
    }
    if form in {ReportFormat.CSV, ReportFormat.PARQUET}:
        _write(api.download("usage", **asked, format=_text(form)), output)
        return
    report = _whole(api, asked)
    if form is None:
        _show(report)
    elif output == "-":
        emit_json(report["data"])
    else:
        _write(msgspec.json.format(msgspec.json.encode(report["data"]), indent=2) + b"\n", output)


def _text(value: Bucket | Order | ReportFormat | None) -> str | None:
    return None if value is None else value.value


def _whole(api: "Api", asked: dict[str, object]) -> dict[str, Any]:
    """Return a report with all its rows, or as many as were asked for, in whatever pages it comes."""
    report: dict[str, Any] = api.get("usage", **asked)
    page = report
    while page["next_after"] is not None and asked["limit"] is None:
        period = {"since": report["since"], "until": report["until"], "after": page["next_after"]}
        page = api.get("usage", **(asked | period))
        report["data"] += page["data"]
    return report


def _write(body: bytes, output: str) -> None:
    """Write a report to standard output, or to a file that is there whole or not at all."""
    from gateway.admin.ledger_files import whole_file  # noqa: PLC0415 - what it needs, tables on a terminal do not

    if output == "-":
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(output)) as file:
        file.write(body)


def _show(report: dict[str, Any]) -> None:
    by = [Grouping(name) for name in report["by"].split(",") if name]
    columns = {"time": "bucket"} if report["bucket"] else {}
    for each in by:
        columns[str(each)] = each.field
    if len(by) == 1 and by[0].id_field is not None:
        columns["id"] = by[0].id_field
    rows = [{**row["group"], **row} for row in report["data"]]
    emit_table(columns | _SUMS, rows, empty="nothing was used in this time")
    more = "; there are more rows" if report["more"] and report["next_after"] is None else ""
    since, until, as_of = (dt.datetime.fromisoformat(report[name]) for name in ("since", "until", "as_of"))
    emit_line(f"from {shown(since)} until {shown(until)}, as of {as_of:%H:%M:%S}Z{more}")
