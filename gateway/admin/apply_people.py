"""Users, teams and memberships of one organization, brought to what a document declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.admin.apply_plan import Run, at, every
from gateway.admin.memberships import Member, add_member, change_member, find_member, list_members, remove_member
from gateway.admin.scope import PersonRole
from gateway.admin.teams import Team, create_team, delete_team, list_teams
from gateway.admin.users import User, create_user, delete_user, find_user, list_users, signed_in_users, update_user

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.admin.apply_document import DeclaredUser
    from gateway.admin.organizations import Organization
    from gateway.admin.scope import MembershipRole

BY_HAND = "manual"
"""The source of what no identity provider has made; what one has made comes back at the next sign-in."""


async def apply_users(
    run: Run, owner: Organization, declared: Mapping[str, DeclaredUser | None], place: tuple[str, ...]
) -> dict[str, User]:
    """Make and change the users that are declared, and return all by name; nobody is deleted yet."""
    found = await every(lambda page: list_users(run.db, run.scope, page, organization=str(owner.id)))
    users = {user.name: user for user in found}
    for name, wanted in declared.items():
        role = None if wanted is None else wanted.role
        with at(*place, "users", name):
            if name not in users:
                given = role or PersonRole.MEMBER
                users[name] = await create_user(run.db, run.scope, name, organization=str(owner.id), role=given)
                run.created("user", (owner.name, name), {"role": given})
            elif role is not None and users[name].role is not role:
                before = users[name].role
                locked = await find_user(run.db, run.scope, str(users[name].id), lock=True)
                users[name] = await update_user(run.db, run.scope, locked, role=role)
                run.changed("user", (owner.name, name), {"role": before}, {"role": role})
    return users


async def apply_teams(
    run: Run, owner: Organization, declared: Mapping[str, object], place: tuple[str, ...]
) -> dict[str, Team]:
    """Make the teams that are declared, and return all by name; none is deleted yet."""
    found = await every(lambda page: list_teams(run.db, run.scope, page, organization=str(owner.id)))
    teams = {team.name: team for team in found}
    for name in declared:
        if name not in teams:
            with at(*place, "teams", name):
                teams[name] = await create_team(run.db, run.scope, name, organization=str(owner.id))
                run.created("team", (owner.name, name), {})
    return teams


async def apply_members(
    run: Run, team: Team, declared: Mapping[str, MembershipRole] | None, place: tuple[str, ...]
) -> None:
    """Bring the memberships of a team to what is declared. Pruned are those that were made by hand."""
    if declared is None:
        return
    found = await every(lambda page: list_members(run.db, run.scope, page, team=str(team.id)))
    members = {member.name: member for member in found}
    for name, role in declared.items():
        path = (team.organization, team.name, name)
        with at(*place, "members", name):
            if name not in members:
                owner = str(team.organization_id)
                await add_member(run.db, run.scope, team=str(team.id), user=name, organization=owner, role=role)
                run.created("membership", path, {"role": role})
            elif members[name].role is not role:
                before = members[name].role
                locked = await _locked(run, members[name])
                await change_member(run.db, run.scope, locked, role)
                run.changed("membership", path, {"role": before}, {"role": role})
    for name in _pruned(run, members, declared):
        member = members[name]
        if member.source == BY_HAND:
            with at(*place, "members"):
                await remove_member(run.db, run.scope, await _locked(run, member))
                run.deleted("membership", (team.organization, team.name, name), {"role": member.role})


async def prune_people(
    run: Run,
    owner: Organization,
    users: Mapping[str, User],
    teams: Mapping[str, Team],
    *,
    declared_users: Mapping[str, object] | None,
    declared_teams: Mapping[str, object] | None,
    place: tuple[str, ...],
) -> None:
    """Delete the teams and users that written sections do not have, which ends their keys.

    Who appeared by signing in stays, as its memberships do: a file that is made by hand does not know of it, and who is
    deleted is kept out at every further sign-in.
    """
    for name in () if declared_teams is None else _pruned(run, teams, declared_teams):
        with at(*place, "teams"):
            await delete_team(run.db, run.scope, str(teams[name].id))
            run.deleted("team", (owner.name, name), {})
    unwanted = [] if declared_users is None else _pruned(run, users, declared_users)
    signed_in = await signed_in_users(run.db, owner.id) if unwanted else frozenset()
    for name in unwanted:
        if users[name].id not in signed_in:
            with at(*place, "users"):
                await delete_user(run.db, run.scope, str(users[name].id))
                run.deleted("user", (owner.name, name), {"role": users[name].role})


def _pruned(run: Run, present: Mapping[str, object], declared: Mapping[str, object]) -> list[str]:
    return sorted(present.keys() - declared.keys()) if run.options.prune else []


async def _locked(run: Run, member: Member) -> Member:
    return await find_member(run.db, run.scope, team=str(member.team_id), user=str(member.id), lock=True)
