"""`penstock admin-key`: keys of the control-plane API: of the platform, of an organization, or of a person."""

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.admin.times import parse_lifetime
from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import ExpiresIn, Json, Organization
from gateway.cli.output import answer, answer_new_key, answer_rows

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="Keys of the control-plane API: of the platform, of an organization, or of a person.",
    no_args_is_help=True,
    add_completion=False,
)


@app.command()
@on_gateway
def create(
    api: "Api",
    *,
    name: Annotated[str, typer.Option("--name", help="Whose it is, as people will see it in lists.")] = "",
    org: Annotated[
        str | None, typer.Option("--org", metavar="ORG", help="It administers this organization alone.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="It may do what this user may: id, or name with --org.")
    ] = None,
    expires_in: ExpiresIn = None,
    as_json: Json = False,
) -> None:
    """Make an admin key, and show it: it is not kept and cannot be shown again. Default: as far as yourself reach."""
    if expires_in is not None:
        parse_lifetime(expires_in, "--expires-in")
    body = {"name": name, "organization": org, "user": user, "expires_in": expires_in}
    made = api.post("admin-keys", body=body)
    answer_new_key(made, f"admin key {made['public_id']}", as_json=as_json)


@app.command("list")
@on_gateway
def list_(api: "Api", *, org: Organization = None, as_json: Json = False) -> None:
    """List the admin keys, without their secrets."""
    found = api.every("admin-keys", organization=org)
    found.sort(key=itemgetter("created_at"))
    columns = {
        "name": "name",
        "id": "public_id",
        "organization": "organization",
        "user": "user",
        "status": "status",
        "expires": "expires_at",
    }
    answer_rows(found, columns, empty="no admin keys; make one with: penstock admin-key create", as_json=as_json)


@app.command()
@on_gateway
def revoke(
    api: "Api",
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the admin key, in either form.")],
    *,
    as_json: Json = False,
) -> None:
    """Revoke an admin key, for ever. Harmless when it is revoked already."""
    revoked = api.delete("admin-keys", key)
    answer(revoked, f"admin key {revoked['public_id']} is revoked", as_json=as_json)
