"""`penstock admin-key`: keys of the control-plane API. Each administers the whole platform."""

from dataclasses import asdict
from typing import Annotated

import typer

from gateway.admin.credentials import create_admin_credential, list_admin_credentials, revoke_admin_credential
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_lifetime
from gateway.cli.connect import control, every
from gateway.cli.options import Json, PostgresDsn
from gateway.cli.output import emit_json, emit_line, emit_table

app = typer.Typer(help="Keys of the control-plane API; each administers the whole platform.", no_args_is_help=True)


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option("--name", help="Whose it is, as people will see it in lists.")] = "",
    expires_in: Annotated[
        str | None, typer.Option("--expires-in", metavar="30d", help="How long it is valid: 30d, 12h.")
    ] = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make an admin key, and show it: it is not kept and cannot be shown again."""
    lifetime = None if expires_in is None else parse_lifetime(expires_in, "--expires-in")
    to = control(postgres_dsn)
    made = to.run(lambda db: create_admin_credential(db, PLATFORM, to.peppers, name=name, expires_in=lifetime))
    if as_json:
        emit_json(asdict(made.about) | {"key": made.key})
    else:
        emit_line(f"admin key {made.about.public_id} made; it is shown only now:")
        emit_line(made.key)


@app.command("list")
def list_(*, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the admin keys, without their secrets."""
    found = control(postgres_dsn).run(lambda db: every(lambda page: list_admin_credentials(db, PLATFORM, page)))
    found.sort(key=lambda credential: credential.created_at)
    if as_json:
        emit_json(found)
    else:
        columns = {"name": "name", "id": "public_id", "status": "status", "expires": "expires_at"}
        emit_table(columns, found, empty="no admin keys; make one with: penstock admin-key create")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the admin key, in either form.")],
    *,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Revoke an admin key, for ever. Harmless when it is revoked already."""
    revoked = control(postgres_dsn).run(lambda db: revoke_admin_credential(db, PLATFORM, key))
    if as_json:
        emit_json(revoked)
    else:
        emit_line(f"admin key {revoked.public_id} is revoked")
