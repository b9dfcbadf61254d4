"""`penstock statement`: what an organization's months came to, as it was said when they were closed."""

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin.statement_files import StatementFormat
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization, RequiredOrganization
from gateway.cli.output import answer, answer_rows, emit_file, emit_line, emit_table, json_text
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="What a month came to, as it was said when it was closed.", no_args_is_help=True, add_completion=False
)

_Month = Annotated[str, typer.Argument(metavar="MONTH", help="Like 2026-08, in UTC.")]


@app.command("list")
@on_gateway
def list_(api: "Api", *, org: Organization = None, as_json: Json = False) -> None:
    """List the statements of closed months, of one organization or of all."""
    found = api.every("statements", organization=org)
    found.sort(key=itemgetter("organization", "number"))
    columns = {
        "organization": "organization",
        "number": "number",
        "month": "month",
        "cost USD": "cost_usd",
        "closed": "closed_at",
    }
    answer_rows(found, columns, empty="no month is closed yet", as_json=as_json)


@app.command()
@on_gateway
def show(
    api: "Api",
    month: _Month,
    *,
    org: Organization = None,
    form: Annotated[
        StatementFormat | None, typer.Option("--format", help="Write the statement as a file instead of a table.")
    ] = None,
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Where a file goes; - is standard output.")
    ] = "-",
    as_json: Json = False,
) -> None:
    """Show the statement of a month; of one that is not closed, a draft of what it would say now."""
    if as_json and form is None:
        form = StatementFormat.JSON
    if form is None and output != "-":
        raise InvalidRequest("--output needs --format: json, csv or html")
    if form is not None and form is not StatementFormat.JSON:
        emit_file(api.download("statements", month, organization=org, format=form.value), output)
        return
    statement = api.get("statements", month, organization=org)
    if form is StatementFormat.JSON:
        emit_file(json_text(statement), output)
        return
    columns = {
        "kind": "kind",
        "month": "of_month",
        "team": "team",
        "model": "model",
        "requests": "requests",
        "prompt tokens": "prompt_tokens",
        "completion tokens": "completion_tokens",
        "cost USD": "cost_usd",
    }
    emit_table(columns, statement["lines"], empty="nothing was used")
    what = "draft, not closed" if statement["draft"] else f"statement {statement['number']}"
    emit_line(f"{statement['organization']} {statement['month']}, {what}: {statement['cost_usd']} USD")


@app.command()
@on_gateway
def close(api: "Api", month: _Month, *, org: RequiredOrganization, as_json: Json = False) -> None:
    """Close a month that has ended: its statement never changes again, and what comes late is in the next one."""
    made = api.post("statements", body={"organization": org, "month": month})
    answer(
        made,
        f"{made['month']} of {made['organization']} is closed: statement {made['number']}, {made['cost_usd']} USD",
        as_json=as_json,
    )
