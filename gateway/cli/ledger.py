"""`penstock ledger`: correct, check and hand out what the ledger says."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from gateway.admin.database import session_on
from gateway.admin.ledger_export import Selection, parse_cursor
from gateway.admin.ledger_files import Format, check_format
from gateway.admin.ledger_rerate import Rerating, is_known_model, rerate
from gateway.admin.names import quoted
from gateway.admin.organizations import narrowed
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_moment
from gateway.admin.usage import Period
from gateway.cli.connect import control
from gateway.cli.ledger_export import write_export
from gateway.cli.ledger_options import OptionalSince, Since, Until, VerifySince
from gateway.cli.ledger_verify import show_findings, verify_on
from gateway.cli.options import Json, Organization, PostgresDsn
from gateway.cli.output import answer, shown
from gateway.cli.progress import Tell, progress
from gateway.errors import InvalidRequest
from gateway.settle.reconcile import REST_S_MAX
from gateway.units import PicoUsd, format_usd

app = typer.Typer(
    help="Correct, check and export the ledger.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command("rerate")
def rerate_(
    *,
    since: Since,
    until: Until = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Only what this model of penstock.yaml served.")
    ] = None,
    org: Organization = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Bring what is written to the prices of its time, as `penstock price list --all` shows them now.

    Events never change: what is missing or too much is written as an adjustment. Stop it when you like and start it
    again: nothing is ever added twice. Requests of a time without a price stay as they are.
    """
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    place = control(postgres_dsn)

    async def work(tell: Tell) -> tuple[Rerating, bool]:
        async with session_on(place.address) as db:
            scope = await narrowed(db, PLATFORM, org)
            async for done in rerate(db, period, model=model, organization_id=scope.organization_id, dry_run=dry_run):
                tell(f"{done.events:,} events, {done.adjusted:,} adjusted, reached {shown(done.reached)}")
            known = done.events > 0 or model is None or await is_known_model(db, model)
        return done, known

    with progress() as tell:
        done, known = asyncio.run(work(tell))
    answer(done.document(), _sentence(done), as_json=as_json)
    if not known and not as_json:
        hint = "it must be a name of penstock.yaml, no alias; see: penstock price list --all"
        typer.echo(f"note: model {quoted(model or '')} has no price and has served nothing: {hint}", err=True)


@app.command()
def verify(
    *,
    since: VerifySince = "24h",
    until: Until = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="The penstock.yaml whose engines are read. Default: no engines."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 also when something cannot be compared.")
    ] = False,
    new_baseline: Annotated[
        bool, typer.Option("--new-baseline", help="Take what the engines count now as right, and compare from here.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", min=0, max=600, help="How long what differs is looked at again."),
    ] = REST_S_MAX,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Hold the ledger against itself, its rollups, the replicas' counters and the engines' own.

    Exits with 1 and a table when accounts do not agree. What differs is looked at again for a while, so that
    requests in flight are no drift. Engines may differ by the tokens of estimated events and 0.1 %; their first reading
    is what later ones are compared from.
    """
    if new_baseline and config is None:
        raise InvalidRequest("--new-baseline is for engines: give their --config")
    period = Period.parse(since, until, dt.datetime.now(dt.UTC))
    address = control(postgres_dsn).address
    with progress() as tell:
        tell("comparing; what differs is looked at again for a moment")
        found = asyncio.run(verify_on(address, period, config, new_baseline=new_baseline, wait_s=wait_s))
    agrees = not found.drifts and not (strict and found.not_compared)
    show_findings(found, agrees=agrees, as_json=as_json)
    if not agrees:
        raise typer.Exit(1)


@app.command()
def export(
    *,
    form: Annotated[Format, typer.Option("--format", help="CSV, or Parquet with exact types.")] = Format.CSV,
    since: OptionalSince = None,
    until: Until = None,
    org: Organization = None,
    output: Annotated[
        str, typer.Option("--output", metavar="FILE", help="Where to; - is standard output, for CSV alone.")
    ] = "-",
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="CURSOR", help="Go on where an export ended: the cursor that it told."),
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Write one line for each event and one for each adjustment, with ids that stay: to bill by.

    A line never changes; a correction is a line of its own, later on. Each export tells a cursor: the next one, with
    --after and otherwise the same options, has exactly the lines that came since. A line that you have by its line_id
    is billed already. A file is there whole or not at all.
    """
    if since is None and after is None:
        raise InvalidRequest("say from when on: --since, or --after with the cursor of an earlier export")
    if output == "-" and (as_json or form is Format.PARQUET):
        raise InvalidRequest("give --output FILE: standard output takes CSV, and nothing beside it")
    check_format(form)
    now = dt.datetime.now(dt.UTC)
    asked = Selection(
        since=None if since is None else Period.parse(since, until, now).since,
        until=None if until is None else parse_moment(until, now, "until"),
        after=parse_cursor(after),
    )
    address = control(postgres_dsn).address
    with progress() as tell:
        done = asyncio.run(write_export(address, asked, form, output, org, tell))
    if output == "-":
        typer.echo(f"{done.lines} lines; go on with --after {done.next_after}", err=True)
    else:
        answer(done, f"{done.lines:,} lines in {output}; go on with --after {done.next_after}", as_json=as_json)


def _sentence(done: Rerating) -> str:
    would = "would be" if done.dry_run else "were"
    difference = format_usd(PicoUsd(done.dearer_pico_usd - done.cheaper_pico_usd))
    parts = f"{format_usd(done.dearer_pico_usd)} more, {format_usd(done.cheaper_pico_usd)} less"
    lines = [f"{done.adjusted:,} of {done.events:,} events {would} adjusted, by {difference} USD in all: {parts}"]
    if done.unpriced:
        lines.append(f"{done.unpriced:,} have no price in force at their moment; see: penstock price list --all")
    return "\n".join(lines)
