"""`penstock price`: what tokens cost, from which moment on."""

import datetime as dt
from dataclasses import asdict
from typing import Annotated

import typer

from gateway.admin.prices import PriceRow, SetPrice, list_prices, parse_effective_from, parse_price, set_price
from gateway.admin.scope import PLATFORM
from gateway.cli.connect import control
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import answer, answer_rows

app = typer.Typer(
    help="Prices of models, each in force from a moment until the next one.",
    no_args_is_help=True,
    add_completion=False,
)

_MOMENT_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_COLUMNS = {
    "model": "model",
    "from": "effective_from",
    "until": "effective_until",
    "input": "input",
    "cached input": "cached_input",
    "output": "output",
    "reasoning": "reasoning",
    "request": "request",
    "source": "source",
}


def _rate(name: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar="USD", help=text)
    return option


@app.command("set")
def set_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name in penstock.yaml, no alias.")],
    *,
    input_: Annotated[str, _rate("--input", "USD per million prompt tokens, such as 0.20.")],
    output: Annotated[str, _rate("--output", "USD per million completion tokens.")],
    cached_input: Annotated[
        str | None, _rate("--cached-input", "USD per million cached prompt tokens. Default: as --input.")
    ] = None,
    reasoning: Annotated[
        str | None, _rate("--reasoning", "USD per million reasoning tokens. Default: as --output.")
    ] = None,
    request: Annotated[str | None, _rate("--request", "USD per request. Default: 0.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="MOMENT",
            help="In force from: 2026-09-01 or 2026-09-01T12:00Z (UTC); 7d is a week ago. Default: now.",
        ),
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Set a price. It is in force from now, or from --from on, until the next one by date.

    A request costs what is in force when it is opened. Replicas hear of a price within a second: one that is dated
    ahead is exact to the request. One dated in the past changes nothing that is written: penstock ledger rerate does.
    """
    price = parse_price(input_, output, cached_input=cached_input, reasoning=reasoning, request=request)
    moment = parse_effective_from(since, dt.datetime.now(dt.UTC))
    made = control(postgres_dsn).run(lambda db: set_price(db, PLATFORM, model, price, since=moment))
    answer(asdict(made.price) | {"rerate": _rerate(made)}, _sentence(made), as_json=as_json)


@app.command("list")
def list_(
    *,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Of this model alone.")] = None,
    past: Annotated[bool, typer.Option("--all", help="Also prices that are no longer in force.")] = False,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """List the prices in force and those to come, in USD per million tokens (per request for the last one).

    Source `config` is penstock.yaml, `admin` was set by hand.
    """
    now = dt.datetime.now(dt.UTC)
    found = control(postgres_dsn).run(lambda db: list_prices(db, now, model=model, past=past))
    empty = "no prices; set one with: penstock price set MODEL --input USD --output USD"
    answer_rows(found, _COLUMNS, empty=empty, as_json=as_json)


def _rerate(made: SetPrice) -> str | None:
    """Return the command that applies a price of the past to what is written."""
    if made.rerate_since is None:
        return None
    return f"penstock ledger rerate --since {_moment(made.rerate_since)} --model {made.price.model}"


def _sentence(made: SetPrice) -> str:
    price: PriceRow = made.price
    until = "" if price.effective_until is None else f" until {_moment(price.effective_until)}"
    rates = f"{price.input} USD in and {price.output} USD out per million tokens"
    lines = [f"model {price.model} costs {rates} from {_moment(price.effective_from)}{until}"]
    if made.is_first:
        lines.append("it had no price before: its name must be that of penstock.yaml")
    if rerate := _rerate(made):
        lines.append(f"what is written since then keeps its cost until you run: {rerate}")
    return "\n".join(lines)


def _moment(moment: dt.datetime) -> str:
    text = moment.astimezone(dt.UTC).strftime(_MOMENT_FORMAT)
    return text.replace(".000000Z", "Z")
