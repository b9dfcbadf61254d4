"""`penstock key`: API keys. The text of a key is shown once, when it is made or rotated."""

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from gateway.admin.key_changes import update_key
from gateway.admin.keys import (
    CreatedKey,
    KeyFilter,
    KeyStatus,
    NewApiKey,
    create_key,
    find_key,
    list_keys,
    revoke_key,
)
from gateway.admin.limits import Subject, set_limit
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_lifetime
from gateway.cli.connect import control
from gateway.cli.key_options import Addresses, ChangedName, Expiry, KeyId, changed, listed, rotate, show_key
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
    limit_values,
)
from gateway.cli.model_names import UncheckedModel, check_named, note_unknown
from gateway.cli.options import ExpiresIn, Json, Organization, PostgresDsn
from gateway.cli.output import answer, answer_new_key, answer_rows
from gateway.domain.principal import Level
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.admin.database import Database

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
def create(
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
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make a key for a team, and show it: it is not kept and cannot be shown again."""
    wanted = NewApiKey(
        team=team,
        organization=org,
        user=user,
        name=name,
        models=None if models is None else listed(models),
        addresses=tuple(address) if address else None,
        expires_in=None if expires_in is None else parse_lifetime(expires_in, "--expires-in"),
    )
    limits = limit_values(
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
    to = control(postgres_dsn)
    named = (wanted.models or ()) + (() if model is None else (model,))
    check_named(named, to.config, unchecked=unchecked_model)

    async def make(db: "Database") -> CreatedKey:
        made = await create_key(db, PLATFORM, to.peppers, wanted)
        if limits:
            await set_limit(db, PLATFORM, Subject(Level.KEY, str(made.about.id)), limits, model=model)
        return made

    made = to.run(make)
    answer_new_key(made, f"key {made.about.public_id} of team {made.about.team}", as_json=as_json)
    note_unknown(named, to.config, unchecked=unchecked_model, as_json=as_json)


@app.command("list")
def list_(
    *,
    org: Organization = None,
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Id or name of a team.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Id or name of a user.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only active, expired or revoked ones.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="PART", help="Part of the name.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="A model that they may use.")] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """List the keys, without their secrets."""
    wanted = KeyFilter(org, team, user, _status(status), name, model)
    found = control(postgres_dsn).every(lambda db, page: list_keys(db, PLATFORM, page, wanted))
    found.sort(key=lambda key: (key.organization, key.team, key.created_at))
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
def show(key: KeyId, *, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Show one key, without its secret."""
    show_key(control(postgres_dsn).run(lambda db: find_key(db, PLATFORM, key)), as_json=as_json)


@app.command()
def update(
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
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Change a key, within a second on every replica. `none` takes a value away."""
    change = changed(name=name, models=models, addresses=address, expires_in=expires_in)
    to = control(postgres_dsn)
    named = change.models if isinstance(change.models, tuple) else ()
    check_named(named, to.config, unchecked=unchecked_model)
    now = to.run(lambda db: update_key(db, PLATFORM, key, change))
    answer(now, f"key {now.public_id} of team {now.team} is changed", as_json=as_json)
    note_unknown(named, to.config, unchecked=unchecked_model, as_json=as_json)


app.command()(rotate)


@app.command()
def revoke(key: KeyId, *, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """Revoke a key, for ever: every replica refuses it within a second. Harmless when it is revoked already."""
    revoked = control(postgres_dsn).run(lambda db: revoke_key(db, PLATFORM, key))
    answer(revoked, f"key {revoked.public_id} of team {revoked.team} is revoked", as_json=as_json)


def _status(text: str | None) -> KeyStatus | None:
    for known in get_args(KeyStatus):
        if text == known:
            status: KeyStatus = known
            return status
    if text is None:
        return None
    raise InvalidRequest("--status must be active, expired or revoked", param="--status")
