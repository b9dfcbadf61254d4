"""`penstock org`: organizations, the outermost tenants."""

from typing import Annotated

import typer

from gateway.admin.organizations import create_organization, list_organizations
from gateway.admin.scope import PLATFORM
from gateway.cli.connect import control
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import answer, answer_rows

app = typer.Typer(help="Organizations, the outermost tenants.", no_args_is_help=True, add_completion=False)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called; unique.")],
    *,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make an organization."""
    made = control(postgres_dsn).run(lambda db: create_organization(db, PLATFORM, name))
    answer(made, f"organization {made.name} made, id {made.id}", as_json=as_json)


@app.command("list")
def list_(*, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the organizations."""
    found = control(postgres_dsn).every(lambda db, page: list_organizations(db, PLATFORM, page))
    found.sort(key=lambda organization: organization.name)
    columns = {"name": "name", "id": "id", "created": "created_at"}
    answer_rows(found, columns, empty="no organizations yet; make one with: penstock org create NAME", as_json=as_json)
