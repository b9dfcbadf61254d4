"""`penstock admin-key`: keys of the control-plane API. Each administers the whole platform."""

from typing import Annotated

import typer

from gateway.admin.credentials import create_admin_credential, list_admin_credentials, revoke_admin_credential
from gateway.admin.scope import PLATFORM
from gateway.admin.times import parse_lifetime
from gateway.cli.connect import control
from gateway.cli.options import ExpiresIn, Json, PostgresDsn
from gateway.cli.output import answer, answer_new_key, answer_rows

app = typer.Typer(
    help="Keys of the control-plane API; each administers the whole platform.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option("--name", help="Whose it is, as people will see it in lists.")] = "",
    expires_in: ExpiresIn = None,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make an admin key, and show it: it is not kept and cannot be shown again."""
    lifetime = None if expires_in is None else parse_lifetime(expires_in, "--expires-in")
    to = control(postgres_dsn)
    made = to.run(lambda db: create_admin_credential(db, PLATFORM, to.peppers, name=name, expires_in=lifetime))
    answer_new_key(made, f"admin key {made.about.public_id}", as_json=as_json)


@app.command("list")
def list_(*, as_json: Json = False, postgres_dsn: PostgresDsn = None) -> None:
    """List the admin keys, without their secrets."""
    found = control(postgres_dsn).every(lambda db, page: list_admin_credentials(db, PLATFORM, page))
    found.sort(key=lambda credential: credential.created_at)
    columns = {"name": "name", "id": "public_id", "status": "status", "expires": "expires_at"}
    answer_rows(found, columns, empty="no admin keys; make one with: penstock admin-key create", as_json=as_json)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the admin key, in either form.")],
    *,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Revoke an admin key, for ever. Harmless when it is revoked already."""
    revoked = control(postgres_dsn).run(lambda db: revoke_admin_credential(db, PLATFORM, key))
    answer(revoked, f"admin key {revoked.public_id} is revoked", as_json=as_json)
