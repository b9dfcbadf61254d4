"""`penstock usage`: what the ledger says was used, by any of tenant, model, engine, session and time."""

import datetime as dt
from typing import TYPE_CHECKING, Any

from gateway.admin.usage_sql import Bucket, Grouping, Order, ReportFormat
from gateway.cli import usage_options as options
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization
from gateway.cli.output import emit_file, emit_line, emit_table, json_text, shown
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
    by: options.By = None,
    bucket: options.InBuckets = None,
    org: Organization = None,
    team: options.OfTeam = None,
    user: options.OfUser = None,
    key: options.OfKey = None,
    model: options.OfModel = None,
    engine: options.OfEngine = None,
    session: options.OfSession = None,
    since: options.Since = None,
    until: options.Until = None,
    order: options.InOrder = None,
    limit: options.Limit = None,
    form: options.Form = None,
    output: options.Output = "-",
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
        emit_file(api.download("usage", **asked, format=_text(form)), output)
        return
    report = _whole(api, asked)
    if form is None:
        _show(report)
    else:
        emit_file(json_text(report["data"]), output)


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
