"""`penstock limit`: requests and tokens per minute of an organization, a team, a user or a key."""

from typing import Annotated

import typer

from gateway.admin.limits import LimitRule, LimitValues, Subject, clear_limit, list_limits, set_limit
from gateway.admin.scope import PLATFORM
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn, RequestsPerMinute, TokensPerMinute
from gateway.cli.output import answer, answer_rows, shown
from gateway.domain.principal import TENANT_LEVELS, Level
from gateway.errors import InvalidRequest

app = typer.Typer(
    help="Requests and tokens per minute, at four levels; all that apply must pass.",
    no_args_is_help=True,
    add_completion=False,
)

_Team = Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Limit a team: id, or name with --org.")]
_User = Annotated[str | None, typer.Option("--user", metavar="USER", help="Limit a user: id, or name with --org.")]
_Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Limit a key, by its id.")]
_Model = Annotated[str | None, typer.Option("--model", metavar="MODEL", help="Only for this model of penstock.yaml.")]
_RequestsBurst = Annotated[
    int | None,
    typer.Option("--requests-burst", metavar="N", help="How many at once. Default: a minute's worth."),
]
_TokensBurst = Annotated[
    int | None, typer.Option("--tokens-burst", metavar="N", help="How many at once. Default: a minute's worth.")
]

_COLUMNS = {
    "organization": "organization",
    "level": "level",
    "subject": "subject",
    "model": "model",
    "requests/min": "requests_per_minute",
    "requests burst": "requests_burst",
    "tokens/min": "tokens_per_minute",
    "tokens burst": "tokens_burst",
}


@app.command("set")
def set_(
    *,
    org: Organization = None,
    team: _Team = None,
    user: _User = None,
    key: _Key = None,
    model: _Model = None,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    requests_burst: _RequestsBurst = None,
    tokens_burst: _TokensBurst = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Set a limit: on an organization with --org alone, else on the team, user or key. What is not given stays."""
    values = LimitValues(requests_per_minute, requests_burst, tokens_per_minute, tokens_burst)
    subject = _subject(org, team, user, key)
    rule = control(postgres_dsn).run(lambda db: set_limit(db, PLATFORM, subject, values, model=model))
    answer(rule, _sentence(rule), as_json=as_json)


@app.command("list")
def list_(*, org: Organization = None, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the limits, of one organization or of all."""
    found = control(postgres_dsn).every(lambda db, page: list_limits(db, PLATFORM, page, organization=org))
    order = TENANT_LEVELS
    found.sort(key=lambda rule: (rule.organization, order.index(rule.level), rule.subject, rule.model or ""))
    empty = "no limits; set one with: penstock limit set --org ORG --tokens-per-minute N"
    answer_rows(found, _COLUMNS, empty=empty, as_json=as_json)


@app.command()
def clear(
    *,
    org: Organization = None,
    team: _Team = None,
    user: _User = None,
    key: _Key = None,
    model: _Model = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Remove the limit that `set` with the same --org, --team, --user, --key and --model made."""
    subject = _subject(org, team, user, key)
    removed = control(postgres_dsn).run(lambda db: clear_limit(db, PLATFORM, subject, model=model))
    answer({"removed": removed}, "the limit is removed" if removed else "there was no such limit", as_json=as_json)


def _subject(org: str | None, team: str | None, user: str | None, key: str | None) -> Subject:
    """Return what is meant: `--org` alone is the organization, beside another it only tells equal names apart."""
    given = [
        (level, reference)
        for level, reference in ((Level.TEAM, team), (Level.USER, user), (Level.KEY, key))
        if reference is not None
    ]
    if len(given) > 1:
        raise InvalidRequest("give only one of --team, --user and --key")
    if given:
        return Subject(*given[0], organization=org)
    if org is None:
        raise InvalidRequest("say what to limit: --org, --team, --user or --key")
    return Subject(Level.ORGANIZATION, org)


def _sentence(rule: LimitRule) -> str:
    amounts = ", ".join(
        f"{shown(value)} {unit} a minute"
        for unit, value in (("requests", rule.requests_per_minute), ("tokens", rule.tokens_per_minute))
        if value is not None
    )
    narrowed = f" for model {rule.model}" if rule.model else ""
    return f"{rule.level} {rule.subject}{narrowed} may use {amounts}"
