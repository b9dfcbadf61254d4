"""`penstock user`: people of an organization."""

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization, RequiredOrganization
from gateway.cli.output import answer, answer_rows
from gateway.errors import InvalidRequest

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(
    help="Users of an organization, members of any number of its teams.", no_args_is_help=True, add_completion=False
)

_User: TypeAlias = Annotated[str, typer.Argument(metavar="USER", help="Id or name of the user.")]
_ROLE = typer.Option("--role", metavar="ROLE", help="member, organization_admin or platform_admin.")


@app.command()
@on_gateway
def create(
    api: "Api",
    name: Annotated[str, typer.Argument(help="What the user is called; unique in its organization.")],
    *,
    org: RequiredOrganization,
    team: Annotated[
        list[str] | None,
        typer.Option("--team", metavar="TEAM", help="Id or name of a team to put the user into; may be repeated."),
    ] = None,
    role: Annotated[str, _ROLE] = "member",
    as_json: Json = False,
) -> None:
    """Make a user."""
    made = api.post("users", body={"name": name, "organization": org, "teams": team or [], "role": role})
    answer(made, f"user {made['name']} of {made['organization']} made, id {made['id']}", as_json=as_json)


@app.command("list")
@on_gateway
def list_(
    api: "Api",
    *,
    org: Organization = None,
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Members of this team alone.")] = None,
    as_json: Json = False,
) -> None:
    """List the users, of one organization or of all."""
    found = api.every("users", organization=org, team=team)
    found.sort(key=itemgetter("organization", "name"))
    columns = {"organization": "organization", "name": "name", "role": "role", "teams": "teams", "id": "id"}
    answer_rows(found, columns, empty="no users; make one with: penstock user create NAME --org ORG", as_json=as_json)


@app.command()
@on_gateway
def update(
    api: "Api",
    user: _User,
    *,
    name: Annotated[str | None, typer.Option("--name", help="What the user is called from now on.")] = None,
    role: Annotated[str | None, _ROLE] = None,
    org: Organization = None,
    as_json: Json = False,
) -> None:
    """Rename a user, or say what the user administers beside teams. A role given here outlasts the next sign-in."""
    change = {field: value for field, value in (("name", name), ("role", role)) if value is not None}
    if not change:
        raise InvalidRequest("say what to change: --name, --role or both")
    now = api.patch("users", user, organization=org, body=change)
    answer(now, f"user {now['name']} of {now['organization']} is {now['role']}", as_json=as_json)


@app.command()
@on_gateway
def delete(api: "Api", user: _User, *, org: Organization = None, as_json: Json = False) -> None:
    """Delete a user, for ever: the keys held are revoked, and every replica refuses them within a second.

    What the user used stays in the ledger.
    """
    gone = api.delete("users", user, organization=org)
    sentence = f"user {gone['name']} of {gone['organization']} is deleted, and the user's keys are revoked"
    answer(gone, sentence, as_json=as_json)
