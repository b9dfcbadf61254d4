"""`penstock org`: organizations, the outermost tenants."""

from typing import Annotated

import typer

from gateway.admin.organizations import Organization, create_organization, list_organizations
from gateway.admin.scope import PLATFORM
from gateway.cli.connect import control, every
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import emit_json, emit_line, emit_table

app = typer.Typer(help="Organizations, the outermost tenants.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is called; unique.")],
    *,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make an organization."""
    made = control(postgres_dsn).run(lambda db: create_organization(db, PLATFORM, name))
    if as_json:
        emit_json(made)
    else:
        emit_line(f"organization {made.name} made, id {made.id}")


@app.command("list")
def list_(*, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the organizations."""
    found: list[Organization] = control(postgres_dsn).run(
        lambda db: every(lambda page: list_organizations(db, PLATFORM, page))
    )
    found.sort(key=lambda organization: organization.name)
    if as_json:
        emit_json(found)
    else:
        columns = {"name": "name", "id": "id", "created": "created_at"}
        emit_table(columns, found, empty="no organizations yet; make one with: penstock org create NAME")
