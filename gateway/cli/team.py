"""`penstock team`: teams of an organization, and who is in them."""

from typing import Annotated

import typer

from gateway.admin.memberships import add_member
from gateway.admin.scope import PLATFORM
from gateway.admin.teams import create_team, delete_team, list_teams
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn, RequiredOrganization
from gateway.cli.output import answer, answer_rows

app = typer.Typer(help="Teams of an organization: what keys belong to.", no_args_is_help=True, add_completion=False)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called; unique in its organization.")],
    *,
    org: RequiredOrganization,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make a team."""
    made = control(postgres_dsn).run(lambda db: create_team(db, PLATFORM, name, organization=org))
    answer(made, f"team {made.name} of {made.organization} made, id {made.id}", as_json=as_json)


@app.command("list")
def list_(*, org: Organization = None, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the teams, of one organization or of all."""
    found = control(postgres_dsn).every(lambda db, page: list_teams(db, PLATFORM, page, organization=org))
    found.sort(key=lambda team: (team.organization, team.name))
    columns = {"organization": "organization", "name": "name", "id": "id", "created": "created_at"}
    answer_rows(found, columns, empty="no teams; make one with: penstock team create NAME --org ORG", as_json=as_json)


@app.command("add-member")
def add(
    team: Annotated[str, typer.Argument(help="Id or name of the team.")],
    user: Annotated[str, typer.Argument(help="Id or name of the user.")],
    *,
    org: Organization = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make a user a member of a team. Harmless when it is one; answers with the user."""
    member = control(postgres_dsn).run(lambda db: add_member(db, PLATFORM, team=team, user=user, organization=org))
    answer(member, f"user {member.name} is a member of: {', '.join(member.teams)}", as_json=as_json)


@app.command()
def delete(
    team: Annotated[str, typer.Argument(help="Id or name of the team.")],
    *,
    org: Organization = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Delete a team, for ever: its keys are revoked, and every replica refuses them within a second.

    Its members stay users of the organization, and what it used stays in the ledger.
    """
    gone = control(postgres_dsn).run(lambda db: delete_team(db, PLATFORM, team, organization=org))
    answer(gone, f"team {gone.name} of {gone.organization} is deleted, and its keys are revoked", as_json=as_json)
