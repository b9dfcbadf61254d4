"""`penstock price`: what tokens cost, from which moment on."""

from collections.abc import Mapping
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.model_names import UncheckedModel
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json
from gateway.cli.output import answer, answer_rows

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="Prices of models, each in force from a moment until the next one.",
    no_args_is_help=True,
    add_completion=False,
)

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
@on_gateway
def set_(
    api: "Api",
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
    unchecked_model: UncheckedModel = False,
    as_json: Json = False,
) -> None:
    """Set a price. It is in force from now, or from --from on, until the next one by date.

    A request costs what is in force when it is opened. Replicas hear of a price within a second: one that is dated
    ahead is exact to the request. One dated in the past changes nothing that is written: penstock ledger rerate does.
    """
    wanted = {
        "model": model,
        "input": input_,
        "output": output,
        "cached_input": cached_input,
        "reasoning": reasoning,
        "request": request,
        "from": since,
        "unchecked_model": unchecked_model,
    }
    made = api.post("prices", body=wanted)
    rerate_since, is_first = made.pop("rerate_since"), made.pop("is_first")
    made["rerate"] = rerate = _rerate(made["model"], rerate_since)
    answer(made, _sentence(made, rerate, is_first=is_first), as_json=as_json)


@app.command("list")
@on_gateway
def list_(
    api: "Api",
    *,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Of this model alone.")] = None,
    past: Annotated[bool, typer.Option("--all", help="Also prices that are no longer in force.")] = False,
    as_json: Json = False,
) -> None:
    """List the prices in force and those to come, in USD per million tokens (per request for the last one).

    Source `config` is penstock.yaml, `admin` was set by hand.
    """
    found = api.every("prices", model=model, past=past)
    found.sort(key=itemgetter("model", "effective_from"))
    empty = "no prices; set one with: penstock price set MODEL --input USD --output USD"
    answer_rows(found, _COLUMNS, empty=empty, as_json=as_json)


def _rerate(model: str, since: str | None) -> str | None:
    """Return the command that applies a price of the past to what is written."""
    return None if since is None else f"penstock ledger rerate --since {since} --model {model}"


def _sentence(price: Mapping[str, Any], rerate: str | None, *, is_first: bool) -> str:
    until = "" if price["effective_until"] is None else f" until {price['effective_until']}"
    rates = f"{price['input']} USD in and {price['output']} USD out per million tokens"
    lines = [f"model {price['model']} costs {rates} from {price['effective_from']}{until}"]
    if is_first:
        lines.append("it had no price before: its name must be that of penstock.yaml")
    if rerate:
        lines.append(f"what is written since then keeps its cost until you run: {rerate}")
    return "\n".join(lines)
