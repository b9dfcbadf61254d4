"""`penstock team`: teams of an organization, and who is in them."""

from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from gateway.cli.on_gateway import on_gateway
from gateway.cli.options import Json, Organization, RequiredOrganization
from gateway.cli.output import answer, answer_rows

if TYPE_CHECKING:
    from gateway.cli.api import Api

app = typer.Typer(help="Teams of an organization: what keys belong to.", no_args_is_help=True, add_completion=False)

_Team: TypeAlias = Annotated[str, typer.Argument(metavar="TEAM", help="Id or name of the team.")]
_User: TypeAlias = Annotated[str, typer.Argument(metavar="USER", help="Id or name of the user.")]
_ROLE = typer.Option("--role", metavar="ROLE", help="member, or team_admin: who administers the team.")


@app.command()
@on_gateway
def create(
    api: "Api",
    name: Annotated[str, typer.Argument(help="What it is called; unique in its organization.")],
    *,
    org: RequiredOrganization,
    as_json: Json = False,
) -> None:
    """Make a team."""
    made = api.post("teams", body={"name": name, "organization": org})
    answer(made, f"team {made['name']} of {made['organization']} made, id {made['id']}", as_json=as_json)


@app.command("list")
@on_gateway
def list_(api: "Api", *, org: Organization = None, as_json: Json = False) -> None:
    """List the teams, of one organization or of all."""
    found = api.every("teams", organization=org)
    found.sort(key=itemgetter("organization", "name"))
    columns = {"organization": "organization", "name": "name", "id": "id", "created": "created_at"}
    answer_rows(found, columns, empty="no teams; make one with: penstock team create NAME --org ORG", as_json=as_json)


@app.command()
@on_gateway
def rename(
    api: "Api",
    team: _Team,
    name: Annotated[str, typer.Argument(help="What it is called from now on.")],
    *,
    org: Organization = None,
    as_json: Json = False,
) -> None:
    """Rename a team. Its keys, limits and usage stay."""
    now = api.patch("teams", team, organization=org, body={"name": name})
    answer(now, f"team {now['name']} of {now['organization']} is called so now", as_json=as_json)


@app.command("members")
@on_gateway
def members(api: "Api", team: _Team, *, org: Organization = None, as_json: Json = False) -> None:
    """List who is in a team, and who administers it."""
    found = api.every("teams", team, "members", organization=org)
    found.sort(key=itemgetter("name"))
    columns = {"name": "name", "role": "role", "source": "source", "id": "id"}
    answer_rows(found, columns, empty="nobody; put somebody in: penstock team add-member TEAM USER", as_json=as_json)


@app.command("add-member")
@on_gateway
def add(
    api: "Api",
    team: _Team,
    user: _User,
    *,
    role: Annotated[str, _ROLE] = "member",
    org: Organization = None,
    as_json: Json = False,
) -> None:
    """Make a user a member of a team. Harmless when it is one; answers with the user."""
    member = api.post("teams", team, "members", body={"user": user, "organization": org, "role": role})
    answer(member, f"user {member['name']} is a member of: {', '.join(member['teams'])}", as_json=as_json)


@app.command("set-role")
@on_gateway
def set_role(
    api: "Api",
    team: _Team,
    user: _User,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="member, or team_admin: who administers the team.")],
    *,
    org: Organization = None,
    as_json: Json = False,
) -> None:
    """Let a member administer its team (team_admin), or no longer (member)."""
    member = api.patch("teams", team, "members", user, organization=org, body={"role": role})
    answer(member, f"user {member['name']} is {member['role']} of team {member['team']}", as_json=as_json)


@app.command("remove-member")
@on_gateway
def remove(api: "Api", team: _Team, user: _User, *, org: Organization = None, as_json: Json = False) -> None:
    """Take a user out of a team: the keys held there are revoked, and every replica refuses them within a second."""
    gone = api.delete("teams", team, "members", user, organization=org)
    sentence = f"user {gone['name']} is out of team {gone['team']}, and the user's keys there are revoked"
    answer(gone, sentence, as_json=as_json)


@app.command()
@on_gateway
def delete(api: "Api", team: _Team, *, org: Organization = None, as_json: Json = False) -> None:
    """Delete a team, for ever: its keys are revoked, and every replica refuses them within a second.

    Its members stay users of the organization, and what it used stays in the ledger.
    """
    gone = api.delete("teams", team, organization=org)
    answer(gone, f"team {gone['name']} of {gone['organization']} is deleted, and its keys are revoked", as_json=as_json)
