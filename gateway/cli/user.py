"""`penstock user`: people of an organization."""

from typing import Annotated

import typer

from gateway.admin.scope import PLATFORM
from gateway.admin.users import create_user, delete_user, list_users
from gateway.cli.connect import control
from gateway.cli.options import Json, Organization, PostgresDsn, RequiredOrganization
from gateway.cli.output import answer, answer_rows

app = typer.Typer(
    help="Users of an organization, members of any number of its teams.", no_args_is_help=True, add_completion=False
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the user is called; unique in its organization.")],
    *,
    org: RequiredOrganization,
    team: Annotated[
        list[str] | None,
        typer.Option("--team", metavar="TEAM", help="Id or name of a team to put the user into; may be repeated."),
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make a user."""
    made = control(postgres_dsn).run(lambda db: create_user(db, PLATFORM, name, organization=org, teams=team or ()))
    answer(made, f"user {made.name} of {made.organization} made, id {made.id}", as_json=as_json)


@app.command("list")
def list_(*, org: Organization = None, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the users, of one organization or of all."""
    found = control(postgres_dsn).every(lambda db, page: list_users(db, PLATFORM, page, organization=org))
    found.sort(key=lambda user: (user.organization, user.name))
    columns = {"organization": "organization", "name": "name", "teams": "teams", "id": "id"}
    answer_rows(found, columns, empty="no users; make one with: penstock user create NAME --org ORG", as_json=as_json)


@app.command()
def delete(
    user: Annotated[str, typer.Argument(help="Id or name of the user.")],
    *,
    org: Organization = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Delete a user, for ever: the keys held are revoked, and every replica refuses them within a second.

    What the user used stays in the ledger.
    """
    gone = control(postgres_dsn).run(lambda db: delete_user(db, PLATFORM, user, organization=org))
    answer(
        gone, f"user {gone.name} of {gone.organization} is deleted, and the user's keys are revoked", as_json=as_json
    )
