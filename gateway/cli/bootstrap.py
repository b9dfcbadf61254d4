"""`penstock bootstrap`: the first admin key, made beside the database because nobody could ask for it over HTTP."""

from dataclasses import asdict
from typing import Annotated

import typer

from gateway.admin.bootstrap import create_first_credential
from gateway.admin.times import parse_lifetime
from gateway.cli.connect import control
from gateway.cli.here import local_caller
from gateway.cli.options import ExpiresIn, Json, PostgresDsn
from gateway.cli.output import answer_new_key


def bootstrap(
    *,
    name: Annotated[str, typer.Option("--name", help="Whose it is, as people will see it in lists.")] = "bootstrap",
    expires_in: ExpiresIn = None,
    force: Annotated[bool, typer.Option("--force", help="Also when one works already: all of them are lost.")] = False,
    as_json: Json = False,
    postgres_dsn: PostgresDsn = None,
) -> None:
    """Make the first admin key, which administers the whole platform, and show it: it cannot be shown again.

    Works on the database, not through a gateway. Refuses when such a key works already.
    """
    lifetime = None if expires_in is None else parse_lifetime(expires_in, "--expires-in")
    to = control(postgres_dsn)
    made = to.run(
        lambda db: create_first_credential(db, local_caller(), to.peppers, name=name, expires_in=lifetime, force=force)
    )
    shown = asdict(made.about) | {"key": made.key}
    answer_new_key(shown, f"admin key {made.about.public_id} of the platform", as_json=as_json)
