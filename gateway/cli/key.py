"""`penstock key`: API keys. The text of a key is shown once, when it is made or rotated."""

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin.times import parse_duration, parse_lifetime
from gateway.cli.key_options import (
    Addresses,
    ChangedName,
    Expiry,
    Grace,
    KeyId,
    changed,
    listed,
    show_key,
    show_rotated,
)
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
    limit_fields,
)
from gateway.cli.model_names import UncheckedModel, note_unknown
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import ExpiresIn, Json, Organization
from gateway.cli.output import answer, answer_new_key, answer_rows
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(help="API keys.", no_args_is_help=True, add_completion=False)

_Team = Annotated[str, typer.Option("--team", metavar="TEAM", help="Id or name of the team that the key belongs to.")]
_User = Annotated[
    str | None,
    typer.Option("--user", metavar="USER", help="Id or name of the member who holds it; none: a service key."),
]
_Models = Annotated[
    str | None, typer.Option("--models", metavar="A,B", help="The only models that it may use. Default: all.")
]
_Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="Let the limits given here be of this model alone.")
]
_Name = Annotated[str, typer.Option("--name", help="What it is for, as people will see it in lists.")]


@app.command()
@on_gateway
def create(
    api: "Api",
    *,
    team: _Team,
    org: Organization = None,
    user: _User = None,
    name: _Name = "",
    models: _Models = None,
    address: Addresses = None,
    expires_in: ExpiresIn = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    input_tokens_per_minute: InputTokensPerMinute = None,
    output_tokens_per_minute: OutputTokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    max_output_tokens: MaxOutputTokens = None,
    budget_usd: BudgetUsd = None,
    budget_period: Period = None,
    budget_stops_streams: StopsStreams = None,
    model: _Model = None,
    unchecked_model: UncheckedModel = False,
    as_json: Json = False,
) -> None:
    """Make a key for a team, and show it: it is not kept and cannot be shown again."""
    limits = limit_fields(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        input_tokens_per_minute=input_tokens_per_minute,
        output_tokens_per_minute=output_tokens_per_minute,
        concurrent_requests=concurrent_requests,
        output_tokens_max=max_output_tokens,
        budget_usd=budget_usd,
        budget_period=budget_period,
        budget_stops_streams=budget_stops_streams,
        of_new=True,
    )
    if model is not None and not limits:
        raise InvalidRequest("--model says which model the limits are of: give one, such as --tokens-per-minute")
    if expires_in is not None:
        parse_lifetime(expires_in, "--expires-in")
    allowed_models = None if models is None else listed(models)
    wanted = {
        "team": team,
        "organization": org,
        "user": user,
        "name": name,
        "models": allowed_models,
        "addresses": address or None,
        "expires_in": expires_in,
        "limits_model": model,
        "unchecked_model": unchecked_model,
    }
    made = api.post("keys", body=wanted | limits)
    answer_new_key(made, f"key {made['public_id']} of team {made['team']}", as_json=as_json)
    named = (allowed_models or ()) + (() if model is None else (model,))
    note_unknown(named, api, unchecked=unchecked_model, as_json=as_json)


@app.command("list")
@on_gateway
def list_(
    api: "Api",
    *,
    org: Organization = None,
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Id or name of a team.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Id or name of a user.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only active, expired or revoked ones.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="PART", help="Part of the name.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="A model that they may use.")] = None,
    as_json: Json = False,
) -> None:
    """List the keys, without their secrets."""
    if status not in {None, "active", "expired", "revoked"}:
        raise InvalidRequest("--status must be active, expired or revoked", param="--status")
    found = api.every("keys", organization=org, team=team, user=user, status=status, name=name, model=model)
    found.sort(key=itemgetter("organization", "team", "created_at"))
    columns = {
        "organization": "organization",
        "team": "team",
        "user": "user",
        "name": "name",
        "id": "public_id",
        "status": "status",
        "models": "models",
        "addresses": "addresses",
        "expires": "expires_at",
    }
    empty = "no keys; make one with: penstock key create --org ORG --team TEAM"
    answer_rows(found, columns, empty=empty, as_json=as_json)


@app.command()
@on_gateway
def show(api: "Api", key: KeyId, *, as_json: Json = False) -> None:
    """Show one key, without its secret."""
    show_key(api.get("keys", key), as_json=as_json)


@app.command()
@on_gateway
def update(
    api: "Api",
    key: KeyId,
    *,
    name: ChangedName = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="A,B", help="The only models that it may use; none: every model.")
    ] = None,
    address: Addresses = None,
    expires_in: Expiry = None,
    unchecked_model: UncheckedModel = False,
    as_json: Json = False,
) -> None:
    """Change a key, within a second on every replica. `none` takes a value away."""
    change = changed(name=name, models=models, addresses=address, expires_in=expires_in)
    now = api.patch("keys", key, body=change | {"unchecked_model": unchecked_model})
    answer(now, f"key {now['public_id']} of team {now['team']} is changed", as_json=as_json)
    note_unknown(tuple(change.get("models") or ()), api, unchecked=unchecked_model, as_json=as_json)


@app.command()
@on_gateway
def rotate(api: "Api", key: KeyId, *, grace: Grace = None, as_json: Json = False) -> None:
    """Give a key a new text, and show it: it is not kept and cannot be shown again. The one before counts for a while.

    Its id, limits and usage stay. A key has two texts at most: rotated again meanwhile, the oldest ends at once.
    """
    lasts = None if grace is None else parse_duration(grace, "--grace")
    rotated = api.post("keys", key, "rotate", body={"grace": grace})
    show_rotated(rotated, graceful=lasts is None or bool(lasts), as_json=as_json)


@app.command()
@on_gateway
def revoke(api: "Api", key: KeyId, *, as_json: Json = False) -> None:
    """Revoke a key, for ever: every replica refuses it within a second. Harmless when it is revoked already."""
    revoked = api.delete("keys", key)
    answer(revoked, f"key {revoked['public_id']} of team {revoked['team']} is revoked", as_json=as_json)
