"""`penstock limit`: what an organization, a team, a user or a key may use, and spend."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.limit_options import (
    BudgetUsd,
    ConcurrentRequests,
    InputTokensPerMinute,
    MaxOutputTokens,
    OutputTokensPerMinute,
    Period,
    RequestsPerMinute,
    StopsStreams,
    TokensPerMinute,
    allowed,
    limit_fields,
)
from gateway.cli.model_names import UncheckedModel, note_unknown
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization
from gateway.cli.output import answer, emit_json, emit_table
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="Requests, tokens, concurrency and budgets, at four levels; all that apply must pass.",
    no_args_is_help=True,
    add_completion=False,
)

_LEVELS = ("organization", "team", "user", "key")
_Team = Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Limit a team: id, or name with --org.")]
_User = Annotated[str | None, typer.Option("--user", metavar="USER", help="Limit a user: id, or name with --org.")]
_Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Limit a key, by its id.")]
_Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Only for this model of penstock.yaml, no alias.")
]


def _burst(name: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, metavar="N", help="At once. Default: a minute's worth.")
    return option


_RequestsBurst = Annotated[str | None, _burst("--requests-burst")]
_TokensBurst = Annotated[str | None, _burst("--tokens-burst")]
_InputTokensBurst = Annotated[str | None, _burst("--input-tokens-burst")]
_OutputTokensBurst = Annotated[str | None, _burst("--output-tokens-burst")]


@app.command("set")
@on_gateway
def set_(
    api: "Api",
    *,
    org: Organization = None,
    team: _Team = None,
    user: _User = None,
    key: _Key = None,
    model: _Model = None,
    unchecked_model: UncheckedModel = False,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    input_tokens_per_minute: InputTokensPerMinute = None,
    output_tokens_per_minute: OutputTokensPerMinute = None,
    requests_burst: _RequestsBurst = None,
    tokens_burst: _TokensBurst = None,
    input_tokens_burst: _InputTokensBurst = None,
    output_tokens_burst: _OutputTokensBurst = None,
    concurrent_requests: ConcurrentRequests = None,
    max_output_tokens: MaxOutputTokens = None,
    budget_usd: BudgetUsd = None,
    budget_period: Period = None,
    budget_stops_streams: StopsStreams = None,
    as_json: Json = False,
) -> None:
    """Set limits: on an organization with --org alone, else on the team, user or key.

    What is not given stays; `none` takes a value away.
    """
    values = limit_fields(
        requests_per_minute=requests_per_minute,
        requests_burst=requests_burst,
        tokens_per_minute=tokens_per_minute,
        tokens_burst=tokens_burst,
        input_tokens_per_minute=input_tokens_per_minute,
        input_tokens_burst=input_tokens_burst,
        output_tokens_per_minute=output_tokens_per_minute,
        output_tokens_burst=output_tokens_burst,
        concurrent_requests=concurrent_requests,
        output_tokens_max=max_output_tokens,
        budget_usd=budget_usd,
        budget_period=budget_period,
        budget_stops_streams=budget_stops_streams,
    )
    named = {"model": model, "unchecked_model": unchecked_model}
    rule = api.post("limits", body=_subject(org, team, user, key, model=model) | named | values)
    answer(rule, _sentence(rule), as_json=as_json)
    note_unknown(() if model is None else (model,), api, unchecked=unchecked_model, as_json=as_json)


@app.command("list")
@on_gateway
def list_(api: "Api", *, org: Organization = None, as_json: Json = False) -> None:
    """List the limits, of one organization or of all, with what is spent of budgets in the periods of now."""
    found = api.every("limits", organization=org, spending=True)
    found.sort(
        key=lambda rule: (rule["organization"], _LEVELS.index(rule["level"]), rule["subject"], rule["model"] or "")
    )
    if as_json:
        emit_json(found)
        return
    lines = [rule | {"allows": "; ".join(allowed(rule))} for rule in found]
    columns = {name: name for name in ("organization", "level", "subject", "model", "allows")}
    emit_table(columns, lines, empty="no limits; set one with: penstock limit set --org ORG --tokens-per-minute N")


@app.command()
@on_gateway
def clear(
    api: "Api",
    *,
    org: Organization = None,
    team: _Team = None,
    user: _User = None,
    key: _Key = None,
    model: _Model = None,
    as_json: Json = False,
) -> None:
    """Remove the limit that `set` with the same --org, --team, --user, --key and --model made."""
    subject = _subject(org, team, user, key, model=model)
    gone = api.delete("limits", **subject, model=model)
    answer(gone, "the limit is removed" if gone["removed"] else "there was no such limit", as_json=as_json)


def _subject(
    org: str | None, team: str | None, user: str | None, key: str | None, *, model: str | None
) -> dict[str, str | None]:
    """Return what is meant: `--org` alone is the organization, beside another it only tells equal names apart."""
    given = [
        (level, reference)
        for level, reference in (("team", team), ("user", user), ("key", key))
        if reference is not None
    ]
    if len(given) > 1:
        raise InvalidRequest("give only one of --team, --user and --key")
    if given:
        return {"level": given[0][0], "subject": given[0][1], "organization": org}
    if org is None and model is not None:
        raise InvalidRequest(
            "say whose use of the model to limit: --org, --team, --user or --key;"
            f" limits over all tenants are in penstock.yaml, under models.{model}.limits"
        )
    if org is None:
        raise InvalidRequest("say what to limit: --org, --team, --user or --key")
    return {"level": "organization", "subject": org}


def _sentence(rule: Mapping[str, Any]) -> str:
    narrowed = f" for model {rule['model']}" if rule["model"] else ""
    amounts = ", ".join(allowed(rule))
    if not amounts:
        return f"{rule['level']} {rule['subject']}{narrowed} has no limit left here"
    return f"{rule['level']} {rule['subject']}{narrowed} may use {amounts}"
